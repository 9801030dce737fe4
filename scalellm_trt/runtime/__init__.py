"""Files that run inside tritonserver, copied verbatim into `<model>/1/`; they see nothing else of this package."""
