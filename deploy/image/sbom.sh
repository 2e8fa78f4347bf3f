#!/bin/sh
# Writes the bill of materials (CycloneDX, JSON) of the image's Python packages, with their hashes, from its lock files.
#
#   deploy/image/sbom.sh CUDA TARGET [PYTHON]
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
cat "$root/requirements-worker.txt" "$torch" |
    "${3:-python3}" -m cyclonedx_py requirements --pyproject "$root/pyproject.toml" --output-reproducible --of JSON --sv 1.6 -o "$2" -
