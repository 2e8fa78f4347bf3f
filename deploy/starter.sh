#!/usr/bin/env bash
# Starts the first worker at once where the pool stands at zero: builds and deploys the service of deploy/starter, and lets
# Pub/Sub push every job to it. Run it after up.sh; the autoscaler must be there, for it does everything else.
#
#   deploy/starter.sh ENVIRONMENT [--dry-run]
. "$(dirname "$0")/lib.sh"
source "$DEPLOY/api.sh"

LABELS=app=klipstream-transcription

main() {
    arguments_of 1 --dry-run -- "$@"
    load_environment "${WORDS[0]}"
    require_gcloud
    LABELS+=",environment=$ENVIRONMENT"

    local digest url audience push starter
    push="serviceAccount:$(account "$PUSH_ACCOUNT")" starter="serviceAccount:$(account "$STARTER_ACCOUNT")"
    audience=$PUSH_SUBSCRIPTION.starter # a name of our own: the service's address is known only after it is deployed
    accounts
    build
    digest=$(value STARTER_DIGEST gcloud artifacts docker images describe "$IMAGE" --format='value(image_summary.digest)')
    first_point
    # One instance at most: what it knows of the pool is its own, and its metric takes one point in five seconds.
    run gcloud run deploy "$STARTER" --region="$REGION" --image="${IMAGE%:*}@$digest" --service-account="$(account "$STARTER_ACCOUNT")" \
        --no-allow-unauthenticated --cpu=1 --memory=256Mi --concurrency=80 --min-instances=0 --max-instances=1 --cpu-throttling \
        --timeout=30 --labels="$LABELS" \
        --set-env-vars="PROJECT_ID=$PROJECT_ID,POOL=projects/$PROJECT_ID/locations/$REGION/workerPools/$POOL,AUDIENCE=$audience,PUSH_ACCOUNT=$(account "$PUSH_ACCOUNT")"
    # Cloud Run itself looks at the token as well: its audience must then be one that the service accepts.
    run gcloud run services update "$STARTER" --region="$REGION" --add-custom-audiences="$audience"
    run_patiently gcloud run services add-iam-policy-binding "$STARTER" --region="$REGION" --member="$push" --role=roles/run.invoker --format=none
    url=$(value STARTER_URL gcloud run services describe "$STARTER" --region="$REGION" --format='value(status.url)')
    push_jobs "$url" "$audience"
}

# The starter may change this pool alone, and write the metric that the autoscaler's query looks at.
accounts() {
    local name
    for name in "$STARTER_ACCOUNT" "$PUSH_ACCOUNT"; do
        found gcloud iam service-accounts describe "$(account "$name")" ||
            run gcloud iam service-accounts create "$name" --display-name="Starts the first transcription worker ($ENVIRONMENT)"
    done
    run_patiently gcloud beta run worker-pools add-iam-policy-binding "$POOL" --region="$REGION" --member="$starter" --role=roles/run.developer --format=none
    run_patiently gcloud iam service-accounts add-iam-policy-binding "$(account "$WORKER_ACCOUNT")" --member="$starter" \
        --role=roles/iam.serviceAccountUser --format=none
    run_patiently gcloud projects add-iam-policy-binding "$PROJECT_ID" --member="$starter" --role=roles/monitoring.metricWriter \
        --condition=None --format=none
}

# Sets IMAGE: one for each content, built where there is none yet, by the builder that cloudbuild.yaml pins.
build() {
    local config
    export IMAGE BUILDER
    IMAGE=$REGION-docker.pkg.dev/$PROJECT_ID/$REPOSITORY/starter:$(cat "$DEPLOY/starter/Dockerfile" "$DEPLOY/starter/main.py" | checksum)
    BUILDER=$(sed -n 's/^ *name: \(.*cloud-builders\/docker@.*\)$/\1/p' "$DEPLOY/../cloudbuild.yaml" | head -n 1)
    config=$(rendered "$DEPLOY/starter/cloudbuild.yaml")
    found gcloud artifacts docker images describe "$IMAGE" ||
        run gcloud builds submit "$DEPLOY/starter" --config="$config" --region=global \
            --service-account="projects/$PROJECT_ID/serviceAccounts/$(account "$BUILD_ACCOUNT")"
}

# Cloud Monitoring shows the first point of a series minutes after it was written and the others within seconds, so the first
# is written here: without it the autoscaler would undo the first start.
first_point() {
    local series
    printf -v series '{"timeSeries": [{"metric": {"type": "%s", "labels": {"pool": "%s"}}, "resource": {"type": "global", "labels": {"project_id": "%s"}}, "points": [{"interval": {"endTime": "%s"}, "value": {"int64Value": "0"}}]}]}' \
        custom.googleapis.com/transcription/wake "$POOL" "$PROJECT_ID" "$(date -u +%FT%TZ)"
    run_api "https://monitoring.googleapis.com/v3/projects/$PROJECT_ID/timeSeries" --request POST \
        --header 'Content-Type: application/json' --data "$series"
}

# Jobs are in the workers' own subscription: a push that is lost or comes late delays the start, never a job.
push_jobs() {
    local flags=(--push-endpoint="$1" --push-auth-service-account="$(account "$PUSH_ACCOUNT")" --push-auth-token-audience="$2"
        --ack-deadline=30 --min-retry-delay=10s --max-retry-delay=60s --message-retention-duration=10m)
    if found gcloud pubsub subscriptions describe "$PUSH_SUBSCRIPTION"; then
        run gcloud pubsub subscriptions update "$PUSH_SUBSCRIPTION" "${flags[@]}" --update-labels="$LABELS"
    else
        run_patiently gcloud pubsub subscriptions create "$PUSH_SUBSCRIPTION" --topic="$JOBS_TOPIC" "${flags[@]}" \
            --expiration-period=never --labels="$LABELS"
    fi
}

main "$@"
