"""What is measured, a module each: it takes a Bench and gives results as JSON."""
