"""Models as files that others read."""
