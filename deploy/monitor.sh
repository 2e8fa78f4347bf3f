#!/usr/bin/env bash
# Makes the dashboard, the alert policies and the log-based metrics of an environment, or brings them to deploy/monitoring.
#
#   deploy/monitor.sh ENVIRONMENT [--dry-run]
#
#   NOTIFICATION_CHANNELS     who is told: projects/P/notificationChannels/N, comma-separated
#   ALERT_EMAIL               without them: a channel to this address, made where there is none
#   RUNBOOK_URL               where your people read docs/operate/runbook.md; default: on the web page of git's origin
#   COST_ALERT_USD_PER_DAY    default 50: two instances all day, and some Deepgram
#
# The worker must send its metrics to Cloud Monitoring: METRICS_EXPORTER=gcp, and
# OTEL_RESOURCE_ATTRIBUTES=service.namespace=ENVIRONMENT,cloud.region=REGION,gcp.project_id=PROJECT.
. "$(dirname "$0")/lib.sh"

main() {
    arguments_of 1 --dry-run -- "$@"
    load_environment "${WORDS[0]}"
    require_gcloud
    channels
    runbook
    each log_metric "$DEPLOY"/monitoring/log-metrics/*.yaml
    each alert "$DEPLOY"/monitoring/alerts/*.yaml
    each dashboard "$DEPLOY/monitoring/dashboard.yaml"
}

# Alerts without a channel reach no one.
channels() {
    local standing
    [[ -z $NOTIFICATION_CHANNELS ]] || return 0
    if [[ -z $ALERT_EMAIL ]]; then
        echo "# WARNING: neither NOTIFICATION_CHANNELS nor ALERT_EMAIL is set: the alerts will reach no one" >&2
        return
    fi
    local -a list=(gcloud beta monitoring channels list "--filter=type=email AND labels.email_address=$ALERT_EMAIL")
    standing=$(value NOTIFICATION_CHANNELS "${list[@]}" --format='value(name)' --limit=1)
    if [[ -z $standing || -n $DRY_RUN ]]; then
        run gcloud beta monitoring channels create --type=email --display-name="Transcription alerts" \
            --channel-labels="email_address=$ALERT_EMAIL"
        standing=$(value NOTIFICATION_CHANNELS "${list[@]}" --format='value(name)' --limit=1)
    fi
    NOTIFICATION_CHANNELS=$standing
}

# Alerts link to the runbook where its address is known: set, or that of the repository this copy was cloned from.
runbook() {
    [[ -n $RUNBOOK_URL ]] || RUNBOOK_URL=$(runbook_of "$(git -C "$DEPLOY" remote get-url origin 2>/dev/null)")
    [[ -n $RUNBOOK_URL ]] ||
        echo "# WARNING: this copy has no origin on the web and RUNBOOK_URL is not set: the alerts get no link to the runbook" >&2
}

# each DO FILE...: do it with every file, rendered.
each() {
    local do=$1 file
    shift
    for file; do
        "$do" "$(rendered "$file")"
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
    [[ -n $RUNBOOK_URL ]] || sed -i.bak '/displayName: Runbook$/,+1d' "$1"
    standing=$(standing "$(title "$1")" gcloud alpha monitoring policies list | head -n 1)
    if [[ -n $standing ]]; then
        run gcloud alpha monitoring policies update "$standing" --policy-from-file="$1" \
            --set-notification-channels="$NOTIFICATION_CHANNELS"
    else
        run gcloud alpha monitoring policies create --policy-from-file="$1" \
            --notification-channels="$NOTIFICATION_CHANNELS"
    fi
}

# standing TITLE COMMAND...: as standing_as; in a dry run there is nothing yet.
standing() {
    [[ -n $DRY_RUN ]] || standing_as "$@"
}

# A new dashboard before the old ones go: an update would need the old one's etag in the file.
dashboard() {
    local name names
    names=$(standing "$(title "$1")" gcloud monitoring dashboards list)
    run gcloud monitoring dashboards create --config-from-file="$1"
    for name in $names; do
        run gcloud monitoring dashboards delete "$name" --quiet
    done
}

main "$@"
