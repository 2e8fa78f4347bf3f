#!/usr/bin/env bash
# Gives all instances back to an earlier revision; jobs in progress go on there from their checkpoints.
#
#   deploy/rollback.sh ENVIRONMENT [REVISION] [--dry-run]
#   deploy/rollback.sh ENVIRONMENT --to-deepgram [--dry-run]
#   deploy/rollback.sh ENVIRONMENT --list
#
#   REVISION       default: the last one before the revision that serves which has another image and became ready
#   --to-deepgram  the image stays; no video uses Parakeet any more (PARAKEET_ROLLOUT_PERCENT=0), on all instances
#   --list         only show the revisions: share of the instances, readiness, age, image
#   --dry-run      print every command, run none
#
# A new deploy.sh ends the rollback: it makes a revision and gives it the instances.
. "$(dirname "$0")/lib.sh"
source "$DEPLOY/pool.sh"

main() {
    local revision
    arguments_of 2 --to-deepgram --list --dry-run -- "$@"
    revision=${WORDS[1]:-}
    load_environment "${WORDS[0]}"
    require_gcloud

    if [[ -n ${GIVEN[to-deepgram]:-} ]]; then
        relaunch PARAKEET_ROLLOUT_PERCENT=0
        return
    fi
    if [[ -n $DRY_RUN ]]; then
        show_fetching
        : "${revision:=$(value REVISION python3 "$DEPLOY/pool.py" previous "$RENDERED/live.json" "$RENDERED/revisions.json")}"
        worker_pools update-instance-split --to-revisions="$revision=100"
        return
    fi
    fetch_pool
    require_pool
    show_revisions
    [[ -z ${GIVEN[list]:-} ]] || return 0
    if [[ -z $revision ]]; then
        revision=$(live previous) ||
            die "no earlier revision with another image than $(live serving || live image) ever became ready; name one, or --to-deepgram"
    fi
    require_revision "$revision"
    [[ $revision != "$(live serving)" ]] || die "$revision is what serves already"
    echo "# from $(live serving || echo a revision that is gone) to $revision"
    look_for_image "$(live image "$revision")"
    worker_pools update-instance-split --to-revisions="$revision=100"
    fetch_pool
    show_revisions
}

# look_for_image IMAGE: a warning where it is not found. It is no error: Cloud Run may have a copy, and this is an emergency.
look_for_image() {
    [[ $1 != *-docker.pkg.dev/* ]] || gcloud artifacts docker images describe "$1" >/dev/null 2>&1 ||
        echo "# WARNING: $1 is not found in the registry. Where no instance becomes ready: --list, and another REVISION" >&2
}

main "$@"
