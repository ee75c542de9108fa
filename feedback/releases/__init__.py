"""A candidate let in step by step: its plan, the votes and measurements, the decision"""
