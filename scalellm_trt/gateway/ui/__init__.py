"""The operator's page: what one gateway is doing now, and a box to try a model; on a listener of its own."""
