"""Which policy versions people prefer, and how sure that is."""
