#!/bin/sh
# Resolves the hash-pinned sets for all platforms and Pythons. They hold hashes, no addresses.
set -eu
cd "$(dirname "$0")/../requirements"
compile() { uv pip compile --quiet --universal --generate-hashes --no-header --python-version 3.11 "$@"; }
compile uv.in -o uv.lock
compile audit.in -o audit.lock
compile ../pyproject.toml --extra cpu --override overrides.txt -o cpu.lock
compile ../pyproject.toml --extra gpu --override overrides-gpu.txt -o gpu.lock
compile ../pyproject.toml torch.in --extra dev --extra training --override overrides-dev.txt -c cpu.lock -o dev.lock
