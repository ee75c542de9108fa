"""From what people said to what is trained on: which counts, how much, and on which side of the split"""
