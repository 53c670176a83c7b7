"""Fine-tuning, and training from random weights."""
