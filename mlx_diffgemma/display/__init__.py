"""Events -> something to look at."""
