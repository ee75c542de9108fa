"""Step two: a reward model of what people ranked, compared and rated."""
