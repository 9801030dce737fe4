"""Making load: plans of cells, client processes that send and keep times, and the runner that writes a run down."""
