"""Policy versions: on the disk, in the registry, where they come from and what they learned from."""
