"""Step one: the policy imitates demonstrations."""
