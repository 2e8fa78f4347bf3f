#!/usr/bin/env bash
# Lets the number of instances follow the backlog: deploys Google's external metrics autoscaler (CREMA) for the pool.
#
#   deploy/autoscale.sh ENVIRONMENT [--dry-run]
#
# Run it after provision.sh and the first deploy.sh, and again when MIN_INSTANCES, MAX_INSTANCES or
# MAX_CONCURRENT_JOBS change. One autoscaler for a pool, never two.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

CREMA=us-central1-docker.pkg.dev/cloud-run-oss-images/crema-v1/autoscaler:1.2
CREMA_BASE=docker.pkg.dev/serverless-runtimes/google-24/runtimes/java25

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

    local scaler version
    scaler=$(account "$SCALER_ACCOUNT")
    configure
    worker_pools add-iam-policy-binding --member="serviceAccount:$scaler" --role=roles/run.developer --format=none
    run gcloud run deploy "$SCALER" --region="$REGION" --image="$CREMA" --base-image="$REGION-$CREMA_BASE" \
        --service-account="$scaler" --no-allow-unauthenticated --max-instances=1 --cpu=1 --memory=512Mi \
        --set-env-vars="CREMA_CONFIG=$version" --labels="app=klipstream-transcription,environment=$ENVIRONMENT"
    run gcloud run services add-iam-policy-binding "$SCALER" --region="$REGION" \
        --member="serviceAccount:$scaler" --role=roles/run.invoker --format=none
    call_every_minute "$scaler"
}

# Sets `version` to the configuration's version: its content's hash, so that an unchanged one is not stored twice.
configure() {
    local file
    file=$(mktemp --suffix=.yaml)
    render "$DEPLOY/autoscaling/crema.yaml" >"$file"
    version="c$(sha256sum "$file" | cut -c1-12)"
    found gcloud parametermanager parameters describe "$SCALER" --location=global ||
        run gcloud parametermanager parameters create "$SCALER" --location=global --parameter-format=YAML
    found gcloud parametermanager parameters versions describe "$version" --parameter="$SCALER" --location=global ||
        run gcloud parametermanager parameters versions create "$version" --parameter="$SCALER" --location=global \
            --payload-data-from-file="$file"
    rm "$file"
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
