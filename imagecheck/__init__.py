"""Builds the images of the Dockerfile without an engine, and tries what comes out."""
