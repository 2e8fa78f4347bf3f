# shellcheck shell=bash
# What the scripts of this folder share. Sourced, never run.
[ -n "${BASH_VERSION:-}" ] || exec bash "${ZSH_ARGZERO:-$0}" "$@" # of `sh deploy/up.sh`
set +o posix # and where sh is bash itself
set -euo pipefail
((BASH_VERSINFO[0] * 100 + BASH_VERSINFO[1] >= 404)) || {
    echo "error: bash $BASH_VERSION is too old, 4.4 or newer is needed (macOS: brew install bash)" >&2
    exit 1
}
exec 3>&1 # what `value` prints in a dry run must not be captured as its result

DEPLOY=$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
DRY_RUN='' FOUND_OUTPUT=''
GCLOUD_LEAST=528 # the oldest gcloud that these scripts were tried with

source "$DEPLOY/arguments.sh"
source "$DEPLOY/environment.sh"

# The header comment of the calling script is its help.
usage() {
    sed -n '2,/^[^#]/{/^#/{s/^# \{0,1\}//;p;};}' "$0"
    exit "${1:-0}"
}

die() {
    echo "error: $*" >&2
    exit 1
}

# The login, gcloud itself and the project, before anything is changed. A dry run needs none of them.
require_gcloud() {
    [[ -z $DRY_RUN ]] || return 0
    local version said tool
    command -v gcloud >/dev/null || die "gcloud is not installed: https://cloud.google.com/sdk/docs/install"
    for tool in python3 curl; do
        command -v "$tool" >/dev/null || die "$tool is not installed, and these scripts need it"
    done
    version=$(answer gcloud version --format='value("Google Cloud SDK")' 2>/dev/null) || version=unknown
    [[ ${version%%.*} =~ ^[0-9]+$ && ${version%%.*} -ge $GCLOUD_LEAST ]] ||
        die "gcloud is version $version, $GCLOUD_LEAST or newer is needed: gcloud components update"
    said=$(gcloud auth print-access-token 2>&1 >/dev/null) ||
        die "no login, or one that has expired: gcloud auth login ($(first_line "$said"))"
    said=$(gcloud projects describe "$PROJECT_ID" --format='value(projectNumber)' 2>&1 >/dev/null) ||
        die "project $PROJECT_ID cannot be read, set PROJECT_ID or ask for access: $(first_line "$said")"
}

# first_line TEXT: the line of what a failed command printed that says why: its error, if it marks one, or the first one
# that is no warning.
first_line() {
    local lines
    lines=$(sed -n 's/^ERROR: //p' <<<"$1")
    [[ -n $lines ]] || lines=$(without_remarks <<<"$1" | sed '/^[[:space:]]*$/d')
    head -n 1 <<<"${lines:-$1}"
}

# answer COMMAND...: what it prints, without the remarks that gcloud, or a program around it, may put on stdout.
answer() {
    "$@" | without_remarks
}

without_remarks() {
    sed -e '/^WARNING:/d' -e '/^Updates are available/d' -e '/^Your active configuration is:/d' -e '/^To take a quick anonymous survey/d'
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
        ((attempt < 12)) || break
        echo "# not yet (attempt $attempt of 12): $(first_line "$said")"
        sleep "${RETRY_SECONDS:-10}"
    done
    die "$(first_line "$said")"
}

# printed COMMAND...: print it; what a dry run does not know yet is a shell variable that an earlier line sets.
printed() {
    quoted "$@" | sed -E 's/@\\?\{([A-Z_]+)\\?\}@/${\1}/g'
}

# quoted WORD...: as they are pasted into a shell.
quoted() {
    local words
    printf -v words ' %q' "$@"
    echo "${words# }"
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
    said=$(without_remarks <<<"$said")
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
    local name=$1
    shift
    if [[ -z $DRY_RUN ]]; then
        answer "$@"
    else
        echo "$name=\$($(quoted "$@"))" >&3
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

# Makes $RENDERED, readable by the caller alone; those of yesterday go.
own_folder() {
    [[ ! -d $RENDERED || ! -O $RENDERED ]] || return 0
    find "${RENDERED%/*}/" -maxdepth 1 -user "$UID" -name "klipstream-$ENVIRONMENT-$UID-*" -mtime +0 -exec rm -rf {} + 2>/dev/null || true
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

# render_pool: the worker pool's YAML. The worker reads an empty limit as none, and without the fallback it needs no key.
render_pool() {
    local FALLBACK_BUDGET_USD_PER_DAY=${FALLBACK_BUDGET_USD_PER_DAY/#none/}
    render "$DEPLOY/worker-pool.yaml" |
        if [[ $ENABLE_FALLBACK == false ]]; then sed '/- name: DEEPGRAM_API_KEY/,/key: latest/d'; else cat; fi
}

# checksum: the first twelve digits of the SHA-256 of what comes in.
checksum() {
    python3 -I -c 'import hashlib, sys; print(hashlib.sha256(sys.stdin.buffer.read()).hexdigest()[:12])'
}

# title FILE: the display name that a file of deploy/monitoring gives to what is made of it.
title() {
    render <(grep -m 1 '^displayName:' "$1") | sed 's/^displayName: "\(.*\)"$/\1/'
}

# standing_as TITLE COMMAND...: the resource names of what has that display name, one a line: a run that was cut off, or two
# at once, may have made a second one.
standing_as() {
    local title=$1
    shift
    value FOUND "$@" --filter="displayName=\"$title\"" --format='value(name)'
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
