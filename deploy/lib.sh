# shellcheck shell=bash
# What the scripts of this folder share. Sourced, never run.
set -euo pipefail
((BASH_VERSINFO[0] * 100 + BASH_VERSINFO[1] >= 404)) || {
    echo "error: bash $BASH_VERSION is too old, 4.4 or newer is needed (macOS: brew install bash)" >&2
    exit 1
}
exec 3>&1 # what `value` prints in a dry run must not be captured as its result

DEPLOY=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
DRY_RUN=${DRY_RUN:-}
GCLOUD_LEAST=528 # the oldest gcloud that these scripts were tried with

# shellcheck source=arguments.sh
source "$DEPLOY/arguments.sh"

# The header comment of the calling script is its help.
usage() {
    sed -n '2,/^[^#]/{/^#/{s/^# \{0,1\}//;p}}' "$0"
    exit "${1:-0}"
}

die() {
    echo "error: $*" >&2
    exit 1
}

# ---- The environment: names and settings ----

# load_environment NAME: its names and settings as variables that child processes see. A setting that the caller has in
# its own environment wins over the files and is listed; a caller that holds another environment's names is refused.
load_environment() {
    local file="$DEPLOY/env/$1.env" name
    [[ $1 != defaults && -f $file ]] || die "there is no environment $1; see $DEPLOY/env"
    local -a names=()
    local -A files=() shell=()
    mapfile -t names < <(setting_names)
    check_file "$file" "${names[@]}"
    read_settings files "$1" "${names[@]}"
    for name in "${names[@]}"; do
        [[ -z ${!name:-} ]] || shell[$name]=${!name}
    done
    refuse_other_environments "$1" "${names[@]}"
    set -a
    # shellcheck source=/dev/null
    source "$file"
    for name in "${!shell[@]}"; do
        printf -v "$name" %s "${shell[$name]}"
    done
    # shellcheck source=env/defaults.env
    source "$DEPLOY/env/defaults.env"
    set +a
    check_settings "${names[@]}"
    export CLOUDSDK_CORE_PROJECT=$PROJECT_ID CLOUDSDK_CORE_DISABLE_PROMPTS=1
    RENDERED=${TMPDIR:-/tmp}/klipstream-$ENVIRONMENT-$UID
    echo "# $ENVIRONMENT: project $PROJECT_ID, region $REGION${DRY_RUN:+; a dry run, as if nothing existed yet}"
    for name in "${names[@]}"; do
        [[ -z ${shell[$name]+set} || ${shell[$name]} == "${files[$name]}" ]] ||
            echo "# from your shell: $name=${shell[$name]} (the files say: ${files[$name]:-nothing})"
    done
    echo "export CLOUDSDK_CORE_PROJECT=$PROJECT_ID"
}

# Every name that deploy/env/defaults.env gives a value.
setting_names() {
    sed -n 's/^: "${\([A-Z_]*\):=.*/\1/p' "$DEPLOY/env/defaults.env"
}

# check_file FILE NAME...: it is valid shell, and assigns settings and nothing else.
check_file() {
    local file=$1 line name known
    shift
    known=" ENVIRONMENT SUFFIX $* "
    bash -n "$file" 2>/dev/null || die "$file is not valid shell: $(bash -n "$file" 2>&1 | head -1)"
    while IFS= read -r line; do
        line=${line#: \"\$\{}
        name=${line%%[=:]*}
        [[ -z ${line//[[:space:]]/} || $line == '#'* || $known == *" $name "* ]] ||
            die "$file: ${name%%[[:space:]]*} is no setting; deploy/env/defaults.env lists them"
    done <"$file"
}

# read_settings ARRAY ENVIRONMENT NAME...: what the files alone give the names, in the caller's project and region.
read_settings() {
    local -n into=$1
    local environment=$2 name value
    shift 2
    # shellcheck disable=SC2016  # the inner shell expands them
    while IFS='=' read -r name value; do
        # shellcheck disable=SC2034,SC2004  # an associative array of the caller's
        into[$name]=$value
    done < <(env -i PATH="$PATH" ${PROJECT_ID:+PROJECT_ID="$PROJECT_ID"} ${REGION:+REGION="$REGION"} \
        bash -euc 'source "$1"; source "$2"; shift 2; for name; do echo "$name=${!name}"; done' - \
        "$DEPLOY/env/$environment.env" "$DEPLOY/env/defaults.env" ENVIRONMENT SUFFIX "$@")
}

# refuse_other_environments NAME SETTING...: ends the script where the caller's shell holds names of another environment
# than the one asked for. Those of a single word or bucket are enough: they are where a script would act.
refuse_other_environments() {
    local wanted=$1 file other name
    local -A own=() others=()
    shift
    local way_out="start a new shell, or run it as: env -i HOME=\"\$HOME\" PATH=\"\$PATH\" deploy/${0##*/} $wanted ..."
    [[ -z ${ENVIRONMENT:-} || $ENVIRONMENT == "$wanted" ]] ||
        die "you asked for $wanted, but ENVIRONMENT=$ENVIRONMENT is set in this shell; $way_out"
    read_settings own "$wanted" "$@"
    [[ -z ${SUFFIX+set} || $SUFFIX == "${own[SUFFIX]}" ]] ||
        die "you asked for $wanted, whose SUFFIX is '${own[SUFFIX]}', but SUFFIX='$SUFFIX' is set in this shell; $way_out"
    for file in "$DEPLOY"/env/*.env; do
        other=$(basename "$file" .env)
        [[ $other != defaults && $other != "$wanted" ]] || continue
        others=()
        read_settings others "$other" "$@"
        for name in $(identifying_names); do
            [[ -z ${!name:-} || ${!name} == "${own[$name]}" || ${!name} != "${others[$name]}" ]] ||
                die "you asked for $wanted, but this shell holds a name of $other: $name=${!name}" \
                    "($wanted has ${own[$name]}); $way_out"
        done
    done
}

# The settings that name a resource; all others mean the same in every environment.
identifying_names() {
    sed -n '/^# Names/,/^$/s/^: "${\([A-Z_]*\):=.*/\1/p' "$DEPLOY/env/defaults.env"
    echo PROJECT_ID
}

# check_settings NAME...: values that would break a file rendered from them, or an arithmetic expression.
check_settings() {
    local name
    # shellcheck disable=SC2016  # the text itself
    for name; do
        [[ ${!name} != *[\"\\$'\n']* && ${!name} != *'${'* ]] ||
            die "$name holds a quote, a backslash, a line break or \${: it cannot be put into a file"
    done
    for name in VCPUS MEMORY_GIB MIN_INSTANCES MAX_INSTANCES MAX_CONCURRENT_JOBS PARAKEET_ROLLOUT_PERCENT; do
        [[ ${!name} =~ ^[0-9]{1,4}$ ]] || die "$name=${!name} is not a whole number"
    done
    ((PARAKEET_ROLLOUT_PERCENT <= 100)) || die "PARAKEET_ROLLOUT_PERCENT=$PARAKEET_ROLLOUT_PERCENT is above 100"
    ((MIN_INSTANCES <= MAX_INSTANCES)) || die "MIN_INSTANCES=$MIN_INSTANCES is above MAX_INSTANCES=$MAX_INSTANCES"
    [[ $FALLBACK_BUDGET_USD_PER_DAY =~ ^(none|[0-9]+(\.[0-9]+)?)$ ]] ||
        die "FALLBACK_BUDGET_USD_PER_DAY=$FALLBACK_BUDGET_USD_PER_DAY is neither a number nor none"
}

# ---- Commands ----

# The login, gcloud itself and the project, before anything is changed. A dry run needs none of them.
require_gcloud() {
    [[ -z $DRY_RUN ]] || return 0
    local version said
    command -v gcloud >/dev/null || die "gcloud is not installed: https://cloud.google.com/sdk/docs/install"
    version=$(gcloud version --format='value("Google Cloud SDK")' 2>/dev/null) || version=unknown
    [[ ${version%%.*} =~ ^[0-9]+$ && ${version%%.*} -ge $GCLOUD_LEAST ]] ||
        die "gcloud is version $version, $GCLOUD_LEAST or newer is needed: gcloud components update"
    said=$(gcloud auth print-access-token 2>&1 >/dev/null) ||
        die "no login, or one that has expired: gcloud auth login ($(first_line "$said"))"
    said=$(gcloud projects describe "$PROJECT_ID" --format='value(projectNumber)' 2>&1 >/dev/null) ||
        die "project $PROJECT_ID cannot be read, set PROJECT_ID or ask for access: $(first_line "$said")"
}

first_line() {
    sed -n '/[^[:space:]]/{s/^ERROR: //;p;q}' <<<"$1"
}

# run COMMAND...: print it so that it can be pasted, and unless this is a dry run, run it.
run() {
    printed "$@"
    [[ -n $DRY_RUN ]] || "$@"
}

# run_patiently COMMAND...: `run`, repeated for up to two minutes: grants and accounts take a while to be known everywhere.
run_patiently() {
    local attempt said
    printed "$@"
    [[ -z $DRY_RUN ]] || return 0
    for attempt in {1..12}; do
        if said=$("$@" 2>&1); then
            [[ -z $said ]] || echo "$said"
            return
        fi
        ((attempt == 12)) || echo "# not yet (attempt $attempt of 12): $(first_line "$said")"
        sleep "${RETRY_SECONDS:-10}"
    done
    die "$(first_line "$said")"
}

# printed COMMAND...: print it; what a dry run does not know yet is a shell variable that an earlier line sets.
printed() {
    local words
    printf -v words ' %q' "$@"
    words=$(sed -E 's/@\\?\{([A-Z_]+)\\?\}@/${\1}/g' <<<"${words# }")
    echo "$words"
}

# found COMMAND...: whether a describing command finds its resource. In a dry run nothing is found. A command that fails
# for another reason than that nothing is there (no login, no access) ends the script. What it prints goes to the file
# that FOUND_OUTPUT names, if any.
found() {
    local said
    [[ -z $DRY_RUN ]] || return 1
    if [[ -n ${FOUND_OUTPUT:-} ]]; then
        ! said=$("$@" 2>&1 >"$FOUND_OUTPUT") || return 0
    else
        ! said=$("$@" 2>&1) || return 0 # bq says on stdout what went wrong
    fi
    [[ ! $said =~ (PERMISSION_DENIED|UNAUTHENTICATED|denied|does not have|reauth|invalid_grant|credential) ]] || die "$(refusal "$said")"
    [[ $said =~ ([Nn]ot.[Ff]ound|NOT_FOUND|404|[Cc]annot\ find|does\ not\ exist) ]] || die "$*: $(refusal "$said")"
    return 1
}

# refusal TEXT: the line of it that says what went wrong.
refusal() {
    first_line "$1" | cut -c1-300
}

# value NAME COMMAND...: what a command prints. In a dry run the command is printed as the assignment of a shell variable,
# and the result is a placeholder that later printed commands name as that variable.
value() {
    local name=$1 words
    shift
    if [[ -z $DRY_RUN ]]; then
        "$@"
    else
        printf -v words ' %q' "$@"
        echo "$name=\$(${words# })" >&3
        echo "@{$name}@"
    fi
}

account() {
    echo "$1@$PROJECT_ID.iam.gserviceaccount.com"
}

# rendered FILE: renders it below $RENDERED, prints where. The file stays, so that a printed command that names it can be
# pasted; the folder is the caller's alone.
rendered() {
    local target="$RENDERED/${1##*/}"
    own_folder
    render "$1" >"$target.$BASHPID"
    mv "$target.$BASHPID" "$target" # whole at any time: another script may render the same file
    echo "$target"
}

# Makes $RENDERED, readable by the caller alone.
own_folder() {
    mkdir -m 700 "$RENDERED" 2>/dev/null || [[ -d $RENDERED && -O $RENDERED ]] ||
        die "$RENDERED cannot be made, or belongs to somebody else: set TMPDIR"
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

# standing_as TITLE COMMAND...: the resource name of what has that display name; empty where there is none.
standing_as() {
    local title=$1
    shift
    value FOUND "$@" --filter="displayName=\"$title\"" --format='value(name)' --limit=1
}

# runbook_of ORIGIN: the runbook's address on the web page of a repository; empty for an origin that has none.
runbook_of() {
    [[ $1 =~ ^(https://|ssh://|)([^/@]*@)?([a-zA-Z0-9.-]+\.[a-z]+)(:[0-9]+)?[:/]([^:]+)$ ]] || return 0
    local host=${BASH_REMATCH[3]} name=${BASH_REMATCH[5]%/}
    echo "https://$host/${name%.git}/blob/HEAD/docs/operate/runbook.md"
}

# The commands for worker pools; the beta track has them in every version of gcloud that knows worker pools at all.
worker_pools() {
    local verb=$1
    shift
    run gcloud beta run worker-pools "$verb" "$POOL" --region="$REGION" "$@"
}
