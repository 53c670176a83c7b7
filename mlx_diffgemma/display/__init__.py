"""Events as something to look at."""
