"""One batch, one loss, one loop."""
