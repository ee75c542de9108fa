"""The parts of Ratchet on one machine, as `ratchet up` runs them: where, started in order, watched, ended."""
