"""What one machine shows of everything that could only be estimated without it: measured step by step, and reported."""
