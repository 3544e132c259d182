"""Commands for people: what they share, and the assistant of the terminal."""
