#!/bin/sh
# Writes the bill of materials (CycloneDX, JSON) of the image's Python packages, with their hashes, from its lock files.
#
#   deploy/image/sbom.sh CUDA NEMO TARGET [PYTHON]
#
# PYTHON has cyclonedx-bom; default: python3. It needs no network.
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
case $1 in
13) torch=$root/deploy/requirements-torch-cuda.txt ;;
12) torch=$root/deploy/requirements-torch-cu12.txt ;;
*)
    echo "CUDA is 13 or 12, not $1" >&2
    exit 1
    ;;
esac
case $2 in
0) packages=$root/requirements-worker.txt ;;
1) packages=$root/deploy/requirements-nemo.txt ;;
*)
    echo "NEMO is 0 or 1, not $2" >&2
    exit 1
    ;;
esac
cat "$packages" "$torch" |
    "${4:-python3}" -m cyclonedx_py requirements --pyproject "$root/pyproject.toml" --output-reproducible --of JSON --sv 1.6 -o "$3" -
