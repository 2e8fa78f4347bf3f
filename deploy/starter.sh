#!/usr/bin/env bash
# Starts the first worker at once where the pool stands at zero: builds and deploys the service of deploy/starter, and lets
# Pub/Sub push every job to it. Run it after up.sh; the autoscaler must be there, for it does everything else.
#
#   deploy/starter.sh ENVIRONMENT [--dry-run]
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

LABELS=app=klipstream-transcription

main() {
    arguments_of 1 --dry-run -- "$@"
    load_environment "${WORDS[0]}"
    require_gcloud
    LABELS+=",environment=$ENVIRONMENT"

    local image digest url audience push starter
    push="serviceAccount:$(account "$PUSH_ACCOUNT")" starter="serviceAccount:$(account "$STARTER_ACCOUNT")"
    audience=$PUSH_SUBSCRIPTION.starter # a name of our own: the service's address is known only after it is deployed
    accounts
    image=$REGION-docker.pkg.dev/$PROJECT_ID/$REPOSITORY/starter:$(cat "$DEPLOY/starter/Dockerfile" "$DEPLOY/starter/main.py" | sha256sum | cut -c1-12)
    found gcloud artifacts docker images describe "$image" ||
        run gcloud builds submit "$DEPLOY/starter" --tag="$image" \
            --service-account="projects/$PROJECT_ID/serviceAccounts/$(account "$BUILD_ACCOUNT")" \
            --default-buckets-behavior=regional-user-owned-bucket
    digest=$(value STARTER_DIGEST gcloud artifacts docker images describe "$image" --format='value(image_summary.digest)')
    run gcloud run deploy "$STARTER" --region="$REGION" --image="${image%:*}@$digest" --service-account="$(account "$STARTER_ACCOUNT")" \
        --no-allow-unauthenticated --cpu=1 --memory=256Mi --concurrency=80 --min-instances=0 --max-instances=2 --cpu-throttling \
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
