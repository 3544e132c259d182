"""Documents translated: cut into sentences, checked, put back, and gone on with after a stop."""
