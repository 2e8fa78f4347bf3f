#!/usr/bin/env bash
# Takes down what monitor.sh, autoscale.sh, deploy.sh and provision.sh made for an environment.
#
#   deploy/destroy.sh ENVIRONMENT [--yes=POOL] [--with-data] [--dry-run]
#
#   --yes=POOL   the name of the worker pool that goes, as a confirmation; without it you are asked to type that name
#   --with-data  also the buckets with everything in them, the dead letters, the costs table and the secret
#   --dry-run    print every command, run none
#
# Stays in any case, for other environments share it: APIs, the registry and its images, the build account, the log-based
# metrics, audit logs. The billing budget goes where BILLING_ACCOUNT is set, as it was when it was made.
. "$(dirname "$0")/lib.sh"

main() {
    local with_data
    arguments_of 1 --yes= --with-data --dry-run -- "$@"
    with_data=${GIVEN[with-data]:-}
    load_environment "${WORDS[0]}"
    confirm "${GIVEN[yes]:-}" "$with_data"
    require_gcloud

    destroy_monitoring # first: nobody is to be called out for what goes on purpose
    destroy_compute
    destroy_queues
    [[ -z $with_data ]] || destroy_data
    destroy_accounts
    destroy_budget
}

# confirm NAME WITH_DATA: the name given, or typed on a terminal, is that of the pool.
confirm() {
    local name=$1
    [[ -z $DRY_RUN ]] || return 0
    if [[ -z $name && -t 0 ]]; then
        echo "This takes down $ENVIRONMENT in project $PROJECT_ID${2:+, with gs://$AUDIO_BUCKET, gs://$OUTPUT_BUCKET, gs://$STATE_BUCKET and all that is in them}."
        read -r -p "Type the name of its worker pool to go on: " name
    fi
    [[ $name == "$POOL" ]] || die "nothing was changed: to take $ENVIRONMENT down, say --yes=$POOL"
}

# remove CHECK... -- COMMAND...: runs the command where the check finds something; a dry run prints it in any case.
remove() {
    local -a check=()
    while [[ $1 != -- ]]; do
        check+=("$1")
        shift
    done
    shift
    if [[ -n $DRY_RUN ]] || found "${check[@]}"; then run "$@"; fi
}

destroy_monitoring() {
    local file
    for file in "$DEPLOY"/monitoring/alerts/*.yaml; do
        remove_titled "$(title "$file")" gcloud alpha monitoring policies
    done
    remove_titled "$(title "$DEPLOY/monitoring/dashboard.yaml")" gcloud monitoring dashboards
}

# remove_titled TITLE GROUP...: all that `GROUP list` finds under that display name.
remove_titled() {
    local title=$1 name names
    shift
    names=$(standing_as "$title" "$@" list)
    for name in $names; do
        run "$@" delete "$name" --quiet
    done
}

destroy_compute() {
    remove gcloud scheduler jobs describe "$SCALER" --location="$REGION" -- \
        gcloud scheduler jobs delete "$SCALER" --location="$REGION"
    remove gcloud run services describe "$SCALER" --region="$REGION" -- \
        gcloud run services delete "$SCALER" --region="$REGION"
    remove gcloud run services describe "$STARTER" --region="$REGION" -- \
        gcloud run services delete "$STARTER" --region="$REGION"
    remove_parameter
    remove gcloud beta run worker-pools describe "$POOL" --region="$REGION" -- \
        gcloud beta run worker-pools delete "$POOL" --region="$REGION"
}

# The autoscaler's configuration: a parameter goes only without its versions.
remove_parameter() {
    local version versions
    if [[ -n $DRY_RUN ]]; then
        versions=$(value VERSION gcloud parametermanager parameters versions list --parameter="$SCALER" --location=global \
            --limit=1 --format='value(name.basename())')
    elif found gcloud parametermanager parameters describe "$SCALER" --location=global; then
        versions=$(answer gcloud parametermanager parameters versions list --parameter="$SCALER" --location=global \
            --format='value(name.basename())')
    else
        return 0
    fi
    for version in $versions; do
        run gcloud parametermanager parameters versions delete "$version" --parameter="$SCALER" --location=global
    done
    remove gcloud parametermanager parameters describe "$SCALER" --location=global -- \
        gcloud parametermanager parameters delete "$SCALER" --location=global
}

# Undelivered jobs and unread events are lost with their subscriptions; dead letters only --with-data.
destroy_queues() {
    local name
    for name in "$PUSH_SUBSCRIPTION" "$COST_SUBSCRIPTION" "$JOBS_SUBSCRIPTION" \
        ${JOBS_SUBSCRIPTION_URGENT:+"$JOBS_SUBSCRIPTION_URGENT"} "$COMPLETION_SUBSCRIPTION"; do
        remove_subscription "$name"
    done
    for name in "$JOBS_TOPIC" "$COMPLETION_TOPIC"; do
        remove_topic "$name"
    done
}

destroy_data() {
    local name
    remove_subscription "$DEAD_LETTER_SUBSCRIPTION"
    remove_topic "$DEAD_LETTER_TOPIC"
    for name in "$STATE_BUCKET" "$OUTPUT_BUCKET" "$AUDIO_BUCKET"; do
        remove gcloud storage buckets describe "gs://$name" -- gcloud storage rm --recursive "gs://$name"
    done
    remove bq show "$PROJECT_ID:$COST_DATASET" -- bq rm -r -f --dataset "$PROJECT_ID:$COST_DATASET"
    remove gcloud secrets describe "$DEEPGRAM_SECRET" -- gcloud secrets delete "$DEEPGRAM_SECRET"
}

destroy_accounts() {
    local name
    for name in "$WORKER_ACCOUNT" "$SCALER_ACCOUNT" "$STARTER_ACCOUNT" "$PUSH_ACCOUNT"; do
        remove gcloud iam service-accounts describe "$(account "$name")" -- \
            gcloud iam service-accounts delete "$(account "$name")"
    done
}

destroy_budget() {
    local name names
    [[ -n $BILLING_ACCOUNT ]] || return 0
    names=$(standing_as "Transcription ($ENVIRONMENT)" gcloud billing budgets list --billing-account="$BILLING_ACCOUNT")
    for name in $names; do
        run gcloud billing budgets delete "$name"
    done
}

remove_subscription() {
    remove gcloud pubsub subscriptions describe "$1" -- gcloud pubsub subscriptions delete "$1"
}

remove_topic() {
    remove gcloud pubsub topics describe "$1" -- gcloud pubsub topics delete "$1"
}

main "$@"
