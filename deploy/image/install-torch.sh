#!/bin/sh
# Installs the torch that REQUIREMENTS pins, and with CUDA what it needs besides, into TARGET.
# With TORCH_INDEX_URL it is that index's build of the same version: no hash is known of it.
set -eu
requirements=$1
target=$2

if [ -z "${TORCH_INDEX_URL:-}" ]; then
    exec python3 -m pip install --no-deps --require-hashes --target "$target" -r "$requirements"
fi
torch=$(grep -o '^torch==[^ ]*' "$requirements")
exec python3 -m pip install --no-deps --index-url "$TORCH_INDEX_URL" --target "$target" "$torch"
