# shellcheck shell=bash disable=SC2034
# The scenes of gameday.sh on this machine: development servers, a worker without a model, the built-in sample. Sourced.

local_scenes() {
    local python=${PYTHON:-$DEPLOY/../.venv/bin/python}
    [[ -x $python ]] || python=python3
    FOLDER=$(mktemp -d) WORKER='' SERVERS=''
    RESTORE=stop_everything
    cd "$DEPLOY/.." || exit
    "$python" -m worker emulators --root "$FOLDER/gcs" --pubsub-port 0 --storage-port 0 >"$FOLDER/servers.log" 2>&1 &
    SERVERS=$!
    until_logged "$FOLDER/servers.log" '# serving until' "$SERVERS"
    set -a
    eval "$(grep '^export [A-Z_]*=' "$FOLDER/servers.log")"
    PARAKEET_MODEL_NAME=null PARAKEET_DEVICE=cpu HEALTH_PORT=0 LOG_FORMAT=json TEMP_DIR=$FOLDER
    set +a
    start_worker
    "$python" -W ignore "$DEPLOY/smoke_job.py"
    scene_kill "$python"
    scene_model "$python"
}

# The worker dies without a word with a job in its hands.
scene_kill() {
    local began=$SECONDS job
    echo "== kill: SIGKILL while a job waits"
    kill -KILL "$WORKER"
    wait "$WORKER" 2>/dev/null || true
    "$1" -W ignore "$DEPLOY/smoke_job.py" &
    job=$!
    start_worker
    wait "$job" || die "the job did not complete after the worker was killed"
    RESULTS+=("$(printf '%-10s  %-36s  %s s' kill "the process is gone: 0 s" $((SECONDS - began)))")
}

# A model that does not exist: the worker must end by itself, with a reason, and not hang.
scene_model() {
    local began=$SECONDS status=0 detected
    echo "== model: a model file that does not exist"
    kill -TERM "$WORKER"
    wait "$WORKER" 2>/dev/null || true
    began=$SECONDS
    PARAKEET_MODEL_NAME=$FOLDER/nonexistent.nemo "$1" -m worker run >"$FOLDER/broken.log" 2>&1 &
    WORKER=$!
    until_ended "$WORKER" || die "a worker without its model did not end within 120 s"
    wait "$WORKER" || status=$?
    ((status != 0)) || die "a worker without its model ended as if nothing were wrong"
    grep -q 'nonexistent.nemo' "$FOLDER/broken.log" || die "a worker without its model did not say so"
    detected=$((SECONDS - began))
    began=$SECONDS
    start_worker
    "$1" -W ignore "$DEPLOY/smoke_job.py"
    RESULTS+=("$(printf '%-10s  %-36s  %s s' model "the worker ends with a reason: $detected s" $((SECONDS - began)))")
}

start_worker() {
    "$python" -m worker run >"$FOLDER/worker.log" 2>&1 &
    WORKER=$!
    until_logged "$FOLDER/worker.log" worker.ready "$WORKER"
}

# until_logged FILE TEXT PROCESS
until_logged() {
    local attempt
    for attempt in {1..600}; do
        ! grep -q -- "$2" "$1" || return 0
        kill -0 "$3" 2>/dev/null || { tail -5 "$1" >&2 && die "it ended before it said $2"; }
        sleep 0.2
    done
    die "it did not say $2 (attempt $attempt)"
}

# until_ended PROCESS: exit status 1 where it has not ended within 120 s.
until_ended() {
    local attempt
    for attempt in {1..600}; do
        kill -0 "$1" 2>/dev/null || return 0
        sleep 0.2
    done
    return 1
}

stop_everything() {
    [[ -z $WORKER ]] || kill -TERM "$WORKER" 2>/dev/null || true
    [[ -z $SERVERS ]] || kill -TERM "$SERVERS" 2>/dev/null || true
    wait 2>/dev/null || true
    rm -rf "$FOLDER"
}
