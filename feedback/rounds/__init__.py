"""Training rounds: the truth about each, and when the next one is due."""
