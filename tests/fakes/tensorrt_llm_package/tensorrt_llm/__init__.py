"""Stands for TensorRT-LLM's python package; see llmapi."""
