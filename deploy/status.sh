#!/usr/bin/env bash
# How an environment is: revisions and their shares, instances, settings that differ from the files, backlog, the last
# errors, what today has cost. Changes nothing.
#
#   deploy/status.sh ENVIRONMENT
. "$(dirname "$0")/lib.sh"
source "$DEPLOY/pool.sh"
source "$DEPLOY/api.sh"

main() {
    [[ ${1:-} != -h && ${1:-} != --help ]] || usage
    [[ $# == 1 && $1 != -* ]] || usage 2
    load_environment "$1"
    require_gcloud
    fetch_pool
    if [[ -z $POOL_EXISTS ]]; then
        echo "there is no worker pool $POOL in $REGION yet: deploy/up.sh $ENVIRONMENT makes one"
    else
        part "revisions" live table
        part "instances" instances
        part "settings that differ from deploy/env (live -> files)" drift
    fi
    part "backlog" backlog
    part "autoscaler" autoscaler
    part "the last errors, of 24 hours" errors
    part "today's cost, UTC" cost
}

# part TITLE COMMAND...: what the command prints; one that fails is said to, and the rest goes on.
part() {
    local said
    echo
    echo "== $1"
    shift
    if said=$("$@" 2>&1); then echo "${said:-none}"; else echo "cannot be read: $(refusal "$said")"; fi
}

instances() {
    echo "asked for: $(live instances) (at least $MIN_INSTANCES, at most $MAX_INSTANCES)"
    echo "ready:     $(number "sum(klipstream_ready{namespace=\"$ENVIRONMENT\"})")"
}

drift() {
    export IMAGE INSTANCES
    IMAGE=$(live image) INSTANCES=$(live instances)
    render_pool >"$RENDERED/files.yaml"
    live diff "$RENDERED/files.yaml"
}

backlog() {
    local of="{monitored_resource=\"pubsub_subscription\",subscription_id=\"$JOBS_SUBSCRIPTION\"}"
    echo "waiting or in progress: $(number "sum(pubsub_googleapis_com:subscription_num_undelivered_messages$of)") jobs"
    echo "the oldest waits for:   $(number "max(pubsub_googleapis_com:subscription_oldest_unacked_message_age$of)") s"
    [[ -z $JOBS_SUBSCRIPTION_URGENT ]] ||
        echo "urgent of them:         $(number "sum(pubsub_googleapis_com:subscription_num_undelivered_messages${of/$JOBS_SUBSCRIPTION/$JOBS_SUBSCRIPTION_URGENT})")"
    of=${of/$JOBS_SUBSCRIPTION/$DEAD_LETTER_SUBSCRIPTION}
    echo "dead letters:           $(number "sum(pubsub_googleapis_com:subscription_num_undelivered_messages$of)")"
}

# number QUERY: its value, or a dash where there is no sample.
number() {
    local found
    found=$(measured "$1") || return 1
    echo "${found:--}"
}

autoscaler() {
    gcloud scheduler jobs describe "$SCALER" --location="$REGION" --format='value(state, lastAttemptTime, status.code)'
}

errors() {
    gcloud logging read "resource.type=\"cloud_run_worker_pool\" AND resource.labels.worker_pool_name=\"$POOL\" AND severity>=ERROR" \
        --freshness=1d --limit=5 --format='value(timestamp, resource.labels.revision_name, jsonPayload.message)'
}

cost() {
    bq query --project_id="$PROJECT_ID" --use_legacy_sql=false --format=pretty --quiet \
        "SELECT outcome, COUNT(DISTINCT event_id) AS jobs, ROUND(SUM(audio_seconds) / 3600, 2) AS audio_hours,
         ROUND(SUM(usd_total), 2) AS usd, ROUND(SUM(savings_usd), 2) AS saved_usd
         FROM \`$PROJECT_ID.$COST_DATASET.$COST_TABLE\` WHERE DATE(occurred_at) = CURRENT_DATE() GROUP BY outcome"
}

main "$@"
