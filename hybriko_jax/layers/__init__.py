"""Parts of models: each file one idea."""
