"""The pretended crowd of `ratchet demo`: what it likes, asks and finds."""
