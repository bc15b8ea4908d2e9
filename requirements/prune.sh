#!/bin/sh
# usage: prune.sh ENVIRONMENT
# Takes out what no program imports: the packages' own tests, what a compiler would read or link, and uv's lock.
# Stubs (*.pyi) stay, since scikit-image reads its own on import; so does all of NVIDIA's.
set -eu
rm -f "$1/.lock"
find "$1" -depth -type d ! -path '*/nvidia/*' \
  \( -name tests -o -name include -o -path '*/onnx/test' -o -path '*/onnx/backend/test' \) -exec rm -rf {} +
find "$1" -type f ! -path '*/nvidia/*' \
  \( -name '*.a' -o -name '*.lib' -o -name '*.c' -o -name '*.h' -o -name '*.hpp' -o -name '*.pxd' -o -name '*.pyx' \
  -o -name '*.rlib' \) -delete
