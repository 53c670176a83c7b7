"""Filling the gaps of a template: what a canvas holds of it, how long its gaps are, and what is written in them."""
