#!/usr/bin/env bash
# The worker pool's log of the last hour, newest last.
#
#   deploy/logs.sh ENVIRONMENT [FILTER] [--since 6h] [--limit 50]
#   deploy/logs.sh production 'severity>=WARNING'
#   deploy/logs.sh production 'jsonPayload.message="health.changed"' --since 1d --limit 1    what /health says, without a way in
#
#   FILTER  as Cloud Logging has it; default: everything
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

main() {
    local environment='' filter='' since=1h limit=50
    while (($#)); do
        case $1 in
        --since) since=${2:?} && shift ;;
        --limit) limit=${2:?} && shift ;;
        -h | --help) usage ;;
        -*) usage 2 ;;
        *) if [[ -z $environment ]]; then environment=$1; else filter=$1; fi ;;
        esac
        shift
    done
    [[ -n $environment ]] || usage 2
    load_environment "$environment" >&2
    require_gcloud
    gcloud logging read "resource.type=\"cloud_run_worker_pool\" AND resource.labels.worker_pool_name=\"$POOL\"${filter:+ AND ($filter)}" \
        --freshness="$since" --limit="$limit" --format='value(timestamp, severity, resource.labels.revision_name, jsonPayload, textPayload)' | tac
}

main "$@"
