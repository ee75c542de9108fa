"""A release in the gateway: its two arms, who is answered by which, and the steps that it takes."""
