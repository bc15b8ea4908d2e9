"""What the two graphs of a bundle do on a CUDA device; `python -m benchmarks.gpu --help`."""
