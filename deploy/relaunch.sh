#!/usr/bin/env bash
# Starts all instances anew: a revision like the one that serves, on all instances, with these settings changed.
#
#   deploy/relaunch.sh ENVIRONMENT [NAME=VALUE...] [--dry-run]
#   deploy/relaunch.sh production                                  new instances, and with them the newest key
#   deploy/relaunch.sh production FALLBACK_BUDGET_USD_PER_DAY=100  kept by the next deploy.sh
#
# It needs no image and no file, and works during a canary and after a rollback: the image is that of the revision with
# the larger share. Other settings than those that deploy.sh keeps are undone by the next deploy.sh, which says so.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
source "$DEPLOY/pool.sh"

main() {
    local environment='' argument
    local -a changes=()
    for argument; do
        case $argument in
        --dry-run) DRY_RUN=1 ;;
        -h | --help) usage ;;
        -*) usage 2 ;;
        *=*) changes+=("$argument") ;;
        *) environment=$argument ;;
        esac
    done
    [[ -n $environment ]] || usage 2
    load_environment "$environment"
    for argument in "${changes[@]}"; do
        grep -q "^ *- name: ${argument%%=*}\$" "$DEPLOY/worker-pool.yaml" || die "${argument%%=*} is no setting of the pool"
    done
    require_gcloud
    relaunch "${changes[@]}" "RELAUNCHED=$(date -u +%FT%TZ)"
}

main "$@"
