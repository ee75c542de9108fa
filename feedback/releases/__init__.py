"""A candidate let in step by step: its plan, orders, votes and measurements, and the decision."""
