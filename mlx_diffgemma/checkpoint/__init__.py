"""Files <-> model: the Hub, safetensors, quantization, names, weights, adapters."""
