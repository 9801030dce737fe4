"""The TensorRT-LLM checkpoint format: written from Hugging Face weights, verified, and read back without torch."""
