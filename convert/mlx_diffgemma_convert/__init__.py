"""The converter: Hugging Face weights in, MLX weights out, in constant memory. See docs/converter.md."""
