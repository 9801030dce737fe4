"""Ways to ask a server: each sends a question and keeps what came when, and later reads an answer out of that."""
