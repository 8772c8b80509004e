"""`make bench-serving`: the inference server, measured against the bare runtime and against its peers."""
