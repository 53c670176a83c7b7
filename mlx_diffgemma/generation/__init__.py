"""A prompt answered, block after block."""
