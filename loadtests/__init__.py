"""A service under load: `python -m loadtests`, described in loadtests/README.md."""
