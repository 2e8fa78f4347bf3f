#!/usr/bin/env bash
# Starts all instances anew: a revision like the one that serves, on all instances, with these settings changed.
#
#   deploy/relaunch.sh ENVIRONMENT [NAME=VALUE...] [--dry-run]
#   deploy/relaunch.sh production                                  new instances, and with them the newest key
#   deploy/relaunch.sh production FALLBACK_BUDGET_USD_PER_DAY=100  kept by the next deploy.sh
#
# It needs no image and no file, and works during a canary and after a rollback: the image is that of the revision with
# the larger share. Other settings than those that deploy.sh keeps are undone by the next deploy.sh, which says so.
. "$(dirname "$0")/lib.sh"
source "$DEPLOY/pool.sh"

main() {
    local word
    local -a environment=() changes=()
    arguments --dry-run -- "$@"
    for word in "${WORDS[@]}"; do
        if [[ $word == *=* ]]; then changes+=("$word"); else environment+=("$word"); fi
    done
    ((${#environment[@]} == 1)) || usage 2
    load_environment "${environment[0]}"
    for word in "${changes[@]}"; do
        check_change "${word%%=*}" "${word#*=}"
    done
    require_gcloud
    relaunch "${changes[@]/#FALLBACK_BUDGET_USD_PER_DAY=none/FALLBACK_BUDGET_USD_PER_DAY=}" "RELAUNCHED=$(date -u +%FT%TZ)"
}

# check_change NAME VALUE: a setting of the pool, with a value that a file could have too.
check_change() {
    grep -q "^ *- name: $1\$" "$DEPLOY/worker-pool.yaml" || die "$1 is no setting of the pool"
    [[ $1 != DEEPGRAM_API_KEY ]] || die "the key is in the secret $DEEPGRAM_SECRET: docs/operate/runbook.md, \"Rotate the Deepgram key\""
    [[ " $(identifying_names | tr '\n' ' ')" != *" $1 "* ]] ||
        die "$1 names a resource, and each environment has its own: deploy/env/$ENVIRONMENT.env, then deploy/deploy.sh"
    [[ -z ${!1+set} ]] || (
        printf -v "$1" %s "$2"
        [[ $1 != FALLBACK_BUDGET_USD_PER_DAY || -n $2 ]] || FALLBACK_BUDGET_USD_PER_DAY=none
        check_settings "$1"
    ) || exit 1
}

main "$@"
