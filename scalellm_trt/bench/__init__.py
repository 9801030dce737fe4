"""Load, records, metrics, reports: a client that measures any server and judges nothing."""
