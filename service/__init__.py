"""The HTTP service: API, admission, batching, decoding in child processes, metrics."""
