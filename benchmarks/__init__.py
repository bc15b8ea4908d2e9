"""The published benchmark: `python -m benchmarks`, described in benchmarks/README.md."""
