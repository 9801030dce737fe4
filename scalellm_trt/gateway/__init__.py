"""The gateway: OpenAI's HTTP API in front, Triton's decoupled gRPC behind; one hop, no torch and no transformers."""
