"""Templates with gaps, filled."""
