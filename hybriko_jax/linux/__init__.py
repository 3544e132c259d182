"""Linux tools that a model may call."""
