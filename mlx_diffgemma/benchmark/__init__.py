"""Measuring a model: how fast it is, how often it is right, and what a right answer costs."""
