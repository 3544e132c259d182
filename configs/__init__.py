"""Named runs: each module has a function config()."""
