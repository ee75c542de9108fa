"""What `ratchet report` shows: how well a reward model fits, and how PPO went."""
