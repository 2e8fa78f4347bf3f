# shellcheck shell=bash
# What the scripts of this folder share. Sourced, never run.
set -euo pipefail

DEPLOY=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
DRY_RUN=${DRY_RUN:-}

# The header comment of the calling script is its help.
usage() {
    sed -n '2,/^[^#]/{/^#/{s/^# \{0,1\}//;p}}' "$0"
    exit "${1:-0}"
}

die() {
    echo "error: $*" >&2
    exit 1
}

# load_environment NAME: its names and settings as variables that child processes see.
load_environment() {
    local file="$DEPLOY/env/$1.env"
    [[ $1 != defaults && -f $file ]] || die "there is no environment $1; see $DEPLOY/env"
    # What the caller has in its environment wins: kept, and read again over the file.
    local overrides
    overrides=$(export -p)
    set -a
    # shellcheck source=/dev/null
    source "$file"
    eval "$overrides"
    # shellcheck source=env/defaults.env
    source "$DEPLOY/env/defaults.env"
    set +a
    export CLOUDSDK_CORE_PROJECT=$PROJECT_ID CLOUDSDK_CORE_DISABLE_PROMPTS=1
    echo "# $ENVIRONMENT: project $PROJECT_ID, region $REGION${DRY_RUN:+; a dry run, as if nothing existed yet}"
    echo "export CLOUDSDK_CORE_PROJECT=$PROJECT_ID"
}

# run COMMAND...: print it so that it can be pasted, and unless this is a dry run, run it.
run() {
    local words
    printf -v words ' %q' "$@"
    echo "${words# }"
    [[ -n $DRY_RUN ]] || "$@"
}

# found COMMAND...: whether a describing command succeeds. In a dry run nothing is found.
found() {
    [[ -z $DRY_RUN ]] && "$@" >/dev/null 2>&1
}

# value PLACEHOLDER COMMAND...: what a command prints; in a dry run the placeholder.
value() {
    local placeholder=$1
    shift
    if [[ -n $DRY_RUN ]]; then echo "$placeholder"; else "$@"; fi
}

account() {
    echo "$1@$PROJECT_ID.iam.gserviceaccount.com"
}

# render FILE: its text with every ${NAME} replaced by that variable; one that is not set ends the script.
render() {
    local line name
    while IFS= read -r line || [[ -n $line ]]; do
        while [[ $line =~ \$\{([A-Z_]+)\} ]]; do
            name=${BASH_REMATCH[1]}
            [[ -n ${!name+set} ]] || die "$1 needs $name"
            line=${line//"\${$name}"/"${!name}"}
        done
        printf '%s\n' "$line"
    done <"$1"
}

# title FILE: the display name that a file of deploy/monitoring gives to what is made of it.
title() {
    render <(grep -m 1 '^displayName:' "$1") | sed 's/^displayName: "\(.*\)"$/\1/'
}

# standing_as PLACEHOLDER TITLE COMMAND...: the resource name of what has that display name; empty where there is none.
standing_as() {
    local placeholder=$1 title=$2
    shift 2
    value "$placeholder" "$@" --filter="displayName=\"$title\"" --format='value(name)' --limit=1
}

# The commands for worker pools; the beta track has them in every version of gcloud that knows worker pools at all.
worker_pools() {
    local verb=$1
    shift
    run gcloud beta run worker-pools "$verb" "$POOL" --region="$REGION" "$@"
}
