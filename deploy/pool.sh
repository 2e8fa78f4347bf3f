# shellcheck shell=bash
# The pool that stands, and how it is changed. Sourced by deploy.sh, rollback.sh, relaunch.sh, up.sh and status.sh.

# fetch_pool: reads the pool and its revisions; sets POOL_EXISTS to 1, or to nothing where there is no pool yet.
fetch_pool() {
    POOL_EXISTS=''
    own_folder
    FOUND_OUTPUT="$RENDERED/described" \
        found gcloud beta run worker-pools describe "$POOL" --region="$REGION" --format=json || return 0
    without_remarks <"$RENDERED/described" >"$RENDERED/live.json"
    answer gcloud beta run worker-pools revisions list --worker-pool="$POOL" --region="$REGION" --format=json \
        >"$RENDERED/revisions.json"
    POOL_EXISTS=1
}

require_pool() {
    [[ -n $POOL_EXISTS ]] || die "there is no worker pool $POOL in $REGION yet: deploy/up.sh $ENVIRONMENT makes one"
}

# live COMMAND [ARGUMENT...]: pool.py on what fetch_pool read.
live() {
    local command=$1
    shift
    python3 -I -S "$DEPLOY/pool.py" "$command" "$RENDERED/live.json" "$RENDERED/revisions.json" "$@"
}

# require_revision NAME: ends the script where the pool has no such revision, or none is named.
require_revision() {
    live image "$1" >/dev/null ||
        die "the pool has no revision '$1': deploy/rollback.sh $ENVIRONMENT --list shows those that there are"
}

show_revisions() {
    live table | sed 's/^/# /'
}

# relaunch NAME=VALUE...: one new revision like the one that serves, with these settings changed, on all instances. It
# works whatever the split of the instances is, where `worker-pools update` would change a revision without instances.
relaunch() {
    if [[ -n $DRY_RUN ]]; then
        show_fetching
        printed_to relaunched.json python3 "$DEPLOY/pool.py" like "$RENDERED/live.json" "$RENDERED/revisions.json" "$@"
        run gcloud beta run worker-pools replace "$RENDERED/relaunched.json"
        return
    fi
    fetch_pool
    require_pool
    show_revisions
    echo "# the new revision is like $(live serving)${*:+, with $*}"
    live like "$@" >"$RENDERED/relaunched.json"
    run gcloud beta run worker-pools replace "$RENDERED/relaunched.json"
    fetch_pool
    show_revisions
}

# In a dry run: the commands whose output fetch_pool reads.
show_fetching() {
    own_folder
    printed_to live.json gcloud beta run worker-pools describe "$POOL" --region="$REGION" --format=json
    printed_to revisions.json gcloud beta run worker-pools revisions list --worker-pool="$POOL" --region="$REGION" --format=json
}

# printed_to NAME COMMAND...: print the command with its output in that file of $RENDERED.
printed_to() {
    echo "$(quoted "${@:2}") >$(quoted "$RENDERED/$1")"
}

# scale N: asks for N instances; the revisions and their shares stay.
scale() {
    fetch_pool
    live scaled "$1" >"$RENDERED/scaled.json"
    run gcloud beta run worker-pools replace "$RENDERED/scaled.json"
}

# logged REVISION FILTER: the newest log entry of the revision that the filter selects, as one line; empty for none.
logged() {
    answer gcloud logging read "resource.type=\"cloud_run_worker_pool\" AND resource.labels.worker_pool_name=\"$POOL\" AND \
resource.labels.revision_name=\"$1\" AND $2" --freshness=1h --limit=1 --format='value(timestamp, jsonPayload)'
}

# await_ready REVISION: until a worker of it has logged that it is ready.
await_ready() {
    local waited=0 most=${READY_SECONDS:-360} step=${POLL_SECONDS:-5} entry=''
    while ((waited < most)); do
        # An older image, to which a rollback goes, has the event's name in its message.
        entry=$(logged "$1" '(jsonPayload.event="worker.ready" OR jsonPayload.message="worker.ready")')
        [[ $entry != *worker.ready* ]] || break
        sleep "$step"
        waited=$((waited + (step > 0 ? step : 5)))
    done
    if [[ $entry != *worker.ready* ]]; then
        echo "# the last thing that $1 logged: $(logged "$1" 'severity>=DEFAULT')" >&2
        die "no worker of $1 became ready within $most s. docs/operate/runbook.md, \"It does not start\"; to go back: deploy/rollback.sh $ENVIRONMENT"
    fi
    echo "# worker.ready: $entry"
}
