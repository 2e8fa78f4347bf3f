#!/usr/bin/env bash
# Makes the dashboard, the alert policies and the log-based metrics of an environment, or brings them to deploy/monitoring.
#
#   deploy/monitor.sh ENVIRONMENT [--dry-run]
#
#   NOTIFICATION_CHANNELS     who is told: projects/P/notificationChannels/N, comma-separated; empty: nobody
#   COST_ALERT_USD_PER_DAY    default 50: two instances all day, and some Deepgram
#
# The worker must send its metrics to Cloud Monitoring: METRICS_EXPORTER=gcp, and
# OTEL_RESOURCE_ATTRIBUTES=service.namespace=ENVIRONMENT,cloud.region=REGION,gcp.project_id=PROJECT.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

: "${NOTIFICATION_CHANNELS:=}"
: "${COST_ALERT_USD_PER_DAY:=50}"
export COST_ALERT_USD_PER_DAY

main() {
    local environment=''
    while (($#)); do
        case $1 in
        --dry-run) DRY_RUN=1 ;;
        -h | --help) usage ;;
        -*) usage 2 ;;
        *) environment=$1 ;;
        esac
        shift
    done
    [[ -n $environment ]] || usage 2
    load_environment "$environment"
    RENDERED=${TMPDIR:-/tmp}/klipstream-monitoring-$ENVIRONMENT # it stays: the printed commands can be pasted
    mkdir -p "$RENDERED"
    each log_metric "$DEPLOY"/monitoring/log-metrics/*.yaml
    each alert "$DEPLOY"/monitoring/alerts/*.yaml
    each dashboard "$DEPLOY/monitoring/dashboard.yaml"
}

# each DO FILE...: do it with every file, rendered.
each() {
    local do=$1 file
    shift
    for file; do
        render "$file" >"$RENDERED/${file##*/}"
        "$do" "$RENDERED/${file##*/}"
    done
}

log_metric() {
    local name verb=create
    name=$(basename "$1" .yaml)
    if found gcloud logging metrics describe "$name"; then verb=update; fi
    run gcloud logging metrics "$verb" "$name" --config-from-file="$1"
}

alert() {
    local standing
    standing=$(standing_as '' "$(title "$1")" gcloud alpha monitoring policies list)
    if [[ -n $standing ]]; then
        run gcloud alpha monitoring policies update "$standing" --policy-from-file="$1" \
            --set-notification-channels="$NOTIFICATION_CHANNELS"
    else
        run gcloud alpha monitoring policies create --policy-from-file="$1" \
            --notification-channels="$NOTIFICATION_CHANNELS"
    fi
}

# A new dashboard before the old one goes: an update would need the old one's etag in the file.
dashboard() {
    local standing
    standing=$(standing_as '' "$(title "$1")" gcloud monitoring dashboards list)
    run gcloud monitoring dashboards create --config-from-file="$1"
    [[ -z $standing ]] || run gcloud monitoring dashboards delete "$standing" --quiet
}

main "$@"
