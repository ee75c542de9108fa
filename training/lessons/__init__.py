"""From what people said to what is trained on: which counts, how much, on which side of the split."""
