"""What the service bears: `python -m reliability`, described in reliability/README.md."""
