"""Training outside of rounds: what `ratchet rm`, `sft` and `ppo` do on files or on the ledger."""
