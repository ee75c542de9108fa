"""What `ratchet` does: a file for each group of commands."""
