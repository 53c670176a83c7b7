"""The converter: turns Hugging Face weights into MLX weights in constant memory. See docs/converter.md."""
