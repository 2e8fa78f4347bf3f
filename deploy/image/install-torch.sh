#!/bin/sh
# Installs the torch of a CUDA release, and with CUDA what it needs besides, into TARGET. FOLDER has the lock files.
# With TORCH_INDEX_URL it is that index's build of the same version: no hash is known of it.
set -eu
folder=$1
target=$2

case ${CUDA:-13} in
13) requirements=$folder/requirements-torch-cuda.txt ;; # driver 580, or NVIDIA's compatibility library
12) requirements=$folder/requirements-torch-cu12.txt ;; # driver 525 or newer; an older torch
*)
    echo "CUDA is 13 or 12, not $CUDA" >&2
    exit 1
    ;;
esac
if [ -z "${TORCH_INDEX_URL:-}" ]; then
    exec python3 -m pip install --no-deps --require-hashes --target "$target" -r "$requirements"
fi
torch=$(grep -o '^torch==[^ ]*' "$requirements")
exec python3 -m pip install --no-deps --index-url "$TORCH_INDEX_URL" --target "$target" "$torch"
