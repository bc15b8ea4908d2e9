"""Whole archives scored as the service would answer them: here, by a Ray cluster or by a Kubernetes Job."""
