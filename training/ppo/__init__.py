"""Step three: completions, their advantages, and the policy improved by them."""
