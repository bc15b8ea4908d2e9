"""The version of the service."""

from importlib import metadata

try:
    VERSION = metadata.version("deepfake-detect")
except metadata.PackageNotFoundError:  # run from a directory where it is not installed
    VERSION = "0.0.0"
