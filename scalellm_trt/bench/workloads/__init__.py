"""What a benchmark asks: each kind of workload in a file of its own, all of them seeded."""
