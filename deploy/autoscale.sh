#!/usr/bin/env bash
# Lets the number of instances follow the backlog: deploys Google's external metrics autoscaler (CREMA) for the pool.
#
#   deploy/autoscale.sh ENVIRONMENT [--no-quota-check] [--dry-run]
#
# Run it after provision.sh and the first deploy.sh, and again when MIN_INSTANCES, MAX_INSTANCES or
# MAX_CONCURRENT_JOBS change, and when a quota was raised: it never asks for more instances than the quotas let run, for
# the autoscaler would ask for too many again and again and get none of them. One autoscaler for a pool, never two.
. "$(dirname "$0")/lib.sh"
source "$DEPLOY/quotas.sh"

CREMA=us-central1-docker.pkg.dev/cloud-run-oss-images/crema-v1/autoscaler:1.2 # deployed by the digest that it has today
CREMA_BASE=docker.pkg.dev/serverless-runtimes/google-24/runtimes/java25

main() {
    arguments_of 1 --no-quota-check --dry-run -- "$@"
    [[ -z ${GIVEN[no-quota-check]:-} ]] || QUOTA_CHECK=0
    load_environment "${WORDS[0]}"
    require_gcloud
    require_commands

    local scaler version digest
    scaler=$(account "$SCALER_ACCOUNT")
    affordable
    configure
    worker_pools add-iam-policy-binding --member="serviceAccount:$scaler" --role=roles/run.developer --format=none
    digest=$(value CREMA_DIGEST gcloud artifacts docker images describe "$CREMA" --format='value(image_summary.digest)')
    run gcloud run deploy "$SCALER" --region="$REGION" --image="${CREMA%:*}@$digest" --base-image="$REGION-$CREMA_BASE" \
        --service-account="$scaler" --no-allow-unauthenticated --max-instances=1 --cpu=1 --memory=512Mi \
        --set-env-vars="CREMA_CONFIG=$version" --labels="app=klipstream-transcription,environment=$ENVIRONMENT"
    run gcloud run services add-iam-policy-binding "$SCALER" --region="$REGION" \
        --member="serviceAccount:$scaler" --role=roles/run.invoker --format=none
    call_every_minute "$scaler"
}

# A grant on a worker pool is younger than the pools themselves: gcloud 528 has no command for it.
require_commands() {
    [[ -z $DRY_RUN ]] || return 0
    gcloud beta run worker-pools add-iam-policy-binding --help >/dev/null 2>&1 ||
        die "this gcloud cannot grant roles on a worker pool: gcloud components update"
}

# Sets MAX_REPLICAS: MAX_INSTANCES, or as many as the quotas let run.
affordable() {
    export MAX_REPLICAS=$MAX_INSTANCES
    [[ $QUOTA_CHECK == 1 ]] || return 0
    read_quotas
    if [[ -n $QUOTA_INSTANCES ]] && ((QUOTA_INSTANCES < MAX_INSTANCES)); then
        ((QUOTA_INSTANCES > 0)) || die "the quotas in $REGION let no instance run: $QUOTA_REASON"
        MAX_REPLICAS=$QUOTA_INSTANCES
        echo "# at most $MAX_REPLICAS instances, not $MAX_INSTANCES: $QUOTA_REASON. docs/operate/runbook.md, \"Quotas\""
    fi
    ((MIN_INSTANCES <= MAX_REPLICAS)) || die "MIN_INSTANCES=$MIN_INSTANCES, but only $MAX_REPLICAS instances may run"
}

# Sets `version` to the configuration's version: its content's hash, so that an unchanged one is not stored twice.
configure() {
    local file
    file=$(rendered "$DEPLOY/autoscaling/crema.yaml")
    version="c$(checksum <"$file")"
    found gcloud parametermanager parameters describe "$SCALER" --location=global ||
        run gcloud parametermanager parameters create "$SCALER" --location=global --parameter-format=YAML
    found gcloud parametermanager parameters versions describe "$version" --parameter="$SCALER" --location=global ||
        run gcloud parametermanager parameters versions create "$version" --parameter="$SCALER" --location=global \
            --payload-data-from-file="$file"
    version="projects/$PROJECT_ID/locations/global/parameters/$SCALER/versions/$version"
}

call_every_minute() {
    local url verb=create
    url=$(value SCALER_URL gcloud run services describe "$SCALER" --region="$REGION" --format='value(status.url)')
    ! found gcloud scheduler jobs describe "$SCALER" --location="$REGION" || verb=update
    run gcloud scheduler jobs "$verb" http "$SCALER" --location="$REGION" --schedule='* * * * *' --uri="$url" \
        --http-method=POST --oidc-service-account-email="$1"
}

main "$@"
