"""What the stages share: steps of the optimizer, in one process or in several."""
