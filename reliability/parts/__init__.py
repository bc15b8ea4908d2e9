"""What can be tried, one module each."""
