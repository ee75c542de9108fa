"""One turn of the loop: its stages in child processes, the gate, and the version it publishes."""
