"""Where a model comes from: a recipe's `model.source` in, a local directory in Hugging Face layout out."""
