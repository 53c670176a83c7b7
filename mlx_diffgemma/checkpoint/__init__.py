"""Files to a model: Hub, safetensors, quantization, weights, adapters."""
