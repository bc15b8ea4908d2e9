#!/bin/sh
# usage: install_torch.sh PYTHON VERSION
# Installs torch without its CUDA packages where a CPU build can be had, and says what it does.
set -eu
python=$1 version=$2
have=$("$python" -c 'import torch; print(torch.__version__)' 2>/dev/null || true)
case "$have" in
  "$version"|"$version"+*) echo "torch $have is installed already"; exit 0 ;;
esac
if [ "$(uname -s)" = Linux ]; then
  if "$python" -m pip install --quiet --no-deps "torch==$version+cpu" 2>/dev/null; then
    echo "installed torch $version, CPU build"
    exit 0
  fi
  echo "pip finds no CPU build of torch $version (its find-links or extra index can name one);"
  echo "installing the default build, which brings several GB of CUDA packages"
fi
"$python" -m pip install --quiet "torch==$version"
