#!/usr/bin/env bash
# Proves an image: it refuses to start without a GPU where one is asked for, and with the tiny model, on a read-only
# tree and without privileges, it gets ready, completes a job and stops on SIGTERM within eight seconds.
#
#   deploy/smoke.sh WORKER_IMAGE TOOLS_IMAGE
#
#   TOOLS_IMAGE       the target `test` of Dockerfile.gpu: it brings the development servers and the sample
#   CONTAINER_ENGINE  docker (the default) or podman
#
# Everything runs on the host's network, on free ports; no GPU, no cloud.
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@"
set -euo pipefail

ENGINE=${CONTAINER_ENGINE:-docker}
WORKER_IMAGE=${1:?the image to prove}
TOOLS_IMAGE=${2:?the image with the development servers}
TINY=/opt/app/worker/embedded/data/tiny-parakeet-tdt.nemo
NAME=smoke-$$

main() {
    trap clean_up EXIT
    refuses_without_a_gpu
    start_servers
    start_worker
    "$ENGINE" exec --env-file "$FOLDER/env" "$NAME-servers" python3 /src/deploy/smoke_job.py
    stop_worker
    echo "smoke test passed: $WORKER_IMAGE"
}

clean_up() {
    local status=$?
    if ((status != 0)) && "$ENGINE" inspect "$NAME-worker" >/dev/null 2>&1; then
        "$ENGINE" logs "$NAME-worker" 2>&1 | tail -40
    fi
    "$ENGINE" rm -f "$NAME-worker" "$NAME-servers" >/dev/null 2>&1 || true
    rm -rf "${FOLDER:-}"
}

# No model is loaded on a CPU unnoticed, where the settings ask for a GPU.
refuses_without_a_gpu() {
    local said status=0
    [[ ! -e /dev/nvidia0 ]] || { echo "# this machine has a GPU: not tried without one" && return; }
    said=$(confined --rm -e PARAKEET_DEVICE=cuda -e PARAKEET_MODEL_NAME="$TINY" "$WORKER_IMAGE" \
        klipstream-worker transcribe /opt/app/worker/embedded/data/two-voices.opus --out /tmp/out 2>&1) || status=$?
    if ((status == 0)) || [[ $said != *GPU* && $said != *CUDA* ]]; then
        echo "started without a GPU, or ended for another reason: $said" >&2
        return 1
    fi
    echo "# without a GPU it refuses to start"
}

start_servers() {
    FOLDER=$(mktemp -d)
    "$ENGINE" run -d --name "$NAME-servers" --network host "$TOOLS_IMAGE" \
        python3 -m worker emulators --root /tmp/gcs --pubsub-port 0 --storage-port 0 >/dev/null
    wait_for "$NAME-servers" '# serving until' 60
    "$ENGINE" logs "$NAME-servers" 2>/dev/null | sed -n 's/^export \([A-Z_]*=.*\)/\1/p' | grep -v '^PARAKEET_' >"$FOLDER/env"
}

start_worker() {
    confined -d --name "$NAME-worker" --env-file "$FOLDER/env" -e PARAKEET_DEVICE=cpu -e PARAKEET_MODEL_NAME="$TINY" \
        -e HEALTH_PORT=$((20000 + $$ % 10000)) "$WORKER_IMAGE" >/dev/null
    wait_for "$NAME-worker" worker.ready 180
    "$ENGINE" exec "$NAME-worker" klipstream-worker health
    echo "# the worker is ready"
}

# As Cloud Run runs it, or stricter: nothing but /tmp can be written.
confined() {
    "$ENGINE" run --network host --read-only --tmpfs /tmp:rw,size=4g --cap-drop ALL \
        --security-opt no-new-privileges "$@"
}

stop_worker() {
    local began=$SECONDS status
    "$ENGINE" stop -t 10 "$NAME-worker" >/dev/null
    status=$("$ENGINE" inspect --format '{{.State.ExitCode}}' "$NAME-worker")
    if ((status != 0 || SECONDS - began > 8)); then
        echo "SIGTERM: exit status $status after $((SECONDS - began)) s" >&2
        return 1
    fi
    echo "# SIGTERM: exit status 0 within $((SECONDS - began)) s"
}

# wait_for CONTAINER TEXT SECONDS: until its log has the text; it must not end before.
wait_for() {
    local deadline=$((SECONDS + $3))
    until "$ENGINE" logs "$1" 2>&1 | grep -q -- "$2"; do
        if ((SECONDS > deadline)) || [[ $("$ENGINE" inspect --format '{{.State.Running}}' "$1") != true ]]; then
            echo "$1 did not come to say $2" >&2
            "$ENGINE" logs "$1" 2>&1 | tail -20
            return 1
        fi
        sleep 1
    done
}

main
