#!/usr/bin/env bash
# The worker pool's log of the last hour, newest last.
#
#   deploy/logs.sh ENVIRONMENT [FILTER] [--since 6h] [--limit 50]
#   deploy/logs.sh production 'severity>=WARNING'
#   deploy/logs.sh production 'jsonPayload.event="health.changed"' --since 1d --limit 1    what /health says, without a way in
#
#   FILTER  as Cloud Logging has it; default: everything
. "$(dirname "$0")/lib.sh"

main() {
    local filter
    arguments_of 2 --since= --limit= -- "$@"
    filter=${WORDS[1]:-}
    load_environment "${WORDS[0]}" >&2
    require_gcloud
    gcloud logging read "resource.type=\"cloud_run_worker_pool\" AND resource.labels.worker_pool_name=\"$POOL\"${filter:+ AND ($filter)}" \
        --freshness="${GIVEN[since]:-1h}" --limit="${GIVEN[limit]:-50}" --format='value(timestamp, severity, resource.labels.revision_name, jsonPayload, textPayload)' |
        sed '1!G;h;$!d' # turned round
}

main "$@"
