"""Fine-tuning and training of DiffusionGemma."""
