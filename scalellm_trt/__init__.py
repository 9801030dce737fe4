"""One YAML recipe to a running LLM service: plan, quantize, compile, assemble, serve, measure."""

__version__ = "0.1.0"
