#!/usr/bin/env bash
# Gives all instances back to an earlier revision; jobs in progress go on there from their checkpoints.
#
#   deploy/rollback.sh ENVIRONMENT [REVISION] [--dry-run]
#   deploy/rollback.sh ENVIRONMENT --to-deepgram [--dry-run]
#
#   REVISION       default: the one before the newest; the last command that is run lists them all
#   --to-deepgram  the code stays; no video uses Parakeet any more (PARAKEET_ROLLOUT_PERCENT=0)
#   --dry-run      print every command, run none
#
# A new deploy.sh ends the rollback: it makes a revision and gives it the instances.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

main() {
    local environment='' revision='' to_deepgram=''
    while (($#)); do
        case $1 in
        --dry-run) DRY_RUN=1 ;;
        --to-deepgram) to_deepgram=1 ;;
        -h | --help) usage ;;
        -*) usage 2 ;;
        *) if [[ -z $environment ]]; then environment=$1; else revision=$1; fi ;;
        esac
        shift
    done
    [[ -n $environment ]] || usage 2
    load_environment "$environment"

    if [[ -n $to_deepgram ]]; then
        worker_pools update --update-env-vars=PARAKEET_ROLLOUT_PERCENT=0
        return
    fi
    : "${revision:=$(value PREVIOUS_REVISION previous_revision)}"
    [[ -n $revision ]] || die "there is no earlier revision"
    worker_pools update-instance-split --to-revisions="$revision=100"
    run gcloud beta run worker-pools revisions list --worker-pool="$POOL" --region="$REGION"
}

previous_revision() {
    gcloud beta run worker-pools revisions list --worker-pool="$POOL" --region="$REGION" \
        --sort-by=~metadata.creationTimestamp --format='value(metadata.name)' | sed -n 2p
}

main "$@"
