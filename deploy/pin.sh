#!/usr/bin/env bash
# Looks up what the tags of Dockerfile.gpu and cloudbuild.yaml, and the model, are today, beside what is pinned there, and
# whether there is a newer ffmpeg (which comes in the package imageio-ffmpeg; `make lock` takes it).
#
#   deploy/pin.sh [--write]
#
#   --write  put the new digests, revision and checksum into Dockerfile.gpu and cloudbuild.yaml; then read the diff, build, and run smoke.sh
#
# It takes docker with buildx, or skopeo, for the images, and the project's .venv for the model.
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@"
set -euo pipefail

ROOT=$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
DOCKERFILE=$ROOT/Dockerfile.gpu
WRITE=''

main() {
    case ${1:-} in
    '') ;;
    --write) WRITE=1 ;;
    *)
        sed -n '2,/^[^#]/{/^#/{s/^# \{0,1\}//;p;};}' "$0"
        exit 2
        ;;
    esac
    local name tag revision sha256
    for name in PYTHON_IMAGE CUDA_IMAGE; do
        tag=$(pinned "$name") && tag=${tag%@*}
        found "$name" "$tag@$(digest "$tag")"
    done
    while read -r tag; do
        builder "${tag%@*}" "$tag"
    done < <(sed -n 's/^    name: \(.*@sha256:.*\)$/\1/p' "$ROOT/cloudbuild.yaml" | sort -u)
    read -r revision sha256 < <(model)
    found MODEL_REVISION "$revision"
    found MODEL_SHA256 "$sha256"
    ffmpeg
}

# Says what the lock file has and what the package index has; a decoder that is behind is the worker's widest door.
ffmpeg() {
    local locked newest
    locked=$(sed -n 's/^imageio-ffmpeg==\([^ ]*\).*/\1/p' "$ROOT/requirements-worker.txt")
    newest=$("$ROOT/.venv/bin/python" -m pip --disable-pip-version-check index versions imageio-ffmpeg 2>/dev/null |
        sed -n '1s/.*(\(.*\)).*/\1/p')
    if [[ -z $newest ]]; then
        echo "?    imageio-ffmpeg==$locked; the package index does not say what is newest"
    elif [[ $locked == "$newest" ]]; then
        echo "same imageio-ffmpeg==$locked"
    else
        echo "new  imageio-ffmpeg==$newest, locked is $locked: raise it in pyproject.toml, then make lock"
    fi
}

pinned() {
    sed -n "s/^ARG $1=//p" "$DOCKERFILE" | head -1
}

digest() {
    if command -v skopeo >/dev/null; then
        skopeo inspect --format '{{.Digest}}' "docker://$1"
    else
        docker buildx imagetools inspect --format '{{.Manifest.Digest}}' "$1"
    fi
}

# Prints the revision of the model's repository and the checksum of its file there, as the hub publishes them.
model() {
    "$ROOT/.venv/bin/python" - "$(pinned MODEL_REPOSITORY)" "$(pinned MODEL_FILE)" <<'PYTHON'
import sys

from huggingface_hub import HfApi

facts = HfApi().model_info(sys.argv[1], files_metadata=True)
(file,) = (one for one in facts.siblings if one.rfilename == sys.argv[2])
print(facts.sha, file.lfs.sha256)
PYTHON
}

# builder TAG PINNED: the same for a builder's image in cloudbuild.yaml; one without a tag is looked up as `latest`.
builder() {
    local now
    now="$1@$(digest "$1")"
    if [[ $now == "$2" ]]; then
        echo "same $now"
    else
        echo "new  $now"
        [[ -z $WRITE ]] || edit "s|name: $2\$|name: $now|" "$ROOT/cloudbuild.yaml"
    fi
}

# edit EXPRESSION FILE: as `sed -i` does, whose option is another one on macOS.
edit() {
    sed "$1" "$2" >"$2.new"
    cat "$2.new" >"$2"
    rm "$2.new"
}

# found NAME VALUE: say whether it differs from what is pinned, and with --write pin it.
found() {
    if [[ $(pinned "$1") == "$2" ]]; then
        echo "same $1=$2"
    else
        echo "new  $1=$2"
        [[ -z $WRITE ]] || edit "s|^ARG $1=..*|ARG $1=$2|" "$DOCKERFILE"
    fi
}

main "$@"
