"""The vLLM server: which policy it holds, proven by its weights, and how one is swapped for another."""
