"""SFT, reward model, PPO, gate, publish: one round turns what people said into the next policy."""
