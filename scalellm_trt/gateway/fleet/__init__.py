"""Several servers behind one gateway: which of them gets a request, and what happens when one breaks."""
