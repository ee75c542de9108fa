"""One base model in memory, and everything it becomes: policy, reference, reward and value model."""
