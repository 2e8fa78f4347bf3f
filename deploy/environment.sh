# shellcheck shell=bash
# The names and settings of an environment: how the files of deploy/env are read and checked. Sourced by lib.sh.

# load_environment NAME: its names and settings as variables that child processes see. A setting that the caller has in
# its own environment wins over the files and is listed; a caller that holds another environment's names is refused.
load_environment() {
    local file="$DEPLOY/env/$1.env" name
    [[ $1 =~ ^[a-z0-9_-]+$ && $1 != defaults && -f $file ]] || die "there is no environment $1; see $DEPLOY/env"
    local -a names=()
    local -A files=() shell=()
    mapfile -t names < <(setting_names)
    check_file "$file" "${names[@]}"
    read_settings files "$1" "${names[@]}" || die "$file: $READ_ERROR"
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
    check_names
    export CLOUDSDK_CORE_PROJECT=$PROJECT_ID CLOUDSDK_CORE_DISABLE_PROMPTS=1
    RENDERED=${TMPDIR:-/tmp}/klipstream-$ENVIRONMENT-$UID
    [[ -n $DRY_RUN ]] || RENDERED+=-$$ # two scripts at once must not read each other's files
    echo "# $ENVIRONMENT: project $PROJECT_ID, region $REGION${DRY_RUN:+; a dry run, as if nothing existed yet}"
    for name in "${names[@]}"; do
        [[ -z ${shell[$name]+set} || ${shell[$name]} == "${files[$name]}" ]] ||
            echo "# from your shell: $name=${shell[$name]} (the files say: ${files[$name]:-nothing})"
    done
    echo "export CLOUDSDK_CORE_PROJECT=$PROJECT_ID"
}

# Every name that deploy/env/defaults.env gives a value; those with a value that matches the expression, if there is one.
setting_names() {
    sed -n "s/^: \"\${\([A-Z_]*\):=${1:-.*}}\".*/\1/p" "$DEPLOY/env/defaults.env"
}

# check_file FILE NAME...: every line of it is empty, a comment, or gives one setting a value.
check_file() {
    local file=$1 line name known found=' ' number=0
    shift
    known=" ENVIRONMENT SUFFIX $* "
    local word='("[^"`]*"|'\''[^'\'']*'\''|[^][:space:]"`'\'';&|<>()\\])*'
    local assigned="^[[:space:]]*(export[[:space:]]+)?([A-Za-z_][A-Za-z_0-9]*)=$word([[:space:]]+#.*|[[:space:]]*)\$"
    local by_default="^[[:space:]]*(:)[[:space:]]+\"\\\$\{([A-Za-z_][A-Za-z_0-9]*):?=[^\"\`]*\}\"([[:space:]]+#.*|[[:space:]]*)\$"
    ! grep -q $'\r' "$file" || die "$file has the line ends of Windows; without them: tr -d '\\r' <$file >new && mv new $file"
    bash -n "$file" 2>/dev/null || die "$file is not valid shell: $(bash -n "$file" 2>&1 | head -n 1)"
    while IFS= read -r line || [[ -n $line ]]; do
        number=$((number + 1))
        [[ ! $line =~ ^[[:space:]]*(#.*)?$ ]] || continue
        [[ $line != *\$\(* && ($line =~ $assigned || $line =~ $by_default) ]] ||
            die "$file, line $number: $line: write NAME=value, with quotes around a value that has blanks"
        name=${BASH_REMATCH[2]}
        [[ $known == *" $name "* ]] || die "$file, line $number: $name is no setting; deploy/env/defaults.env lists them"
        found+="$name "
    done <"$file"
    for name in ENVIRONMENT SUFFIX; do
        [[ $found == *" $name "* ]] || die "$file gives no $name; see deploy/env/staging.env"
    done
}

# read_settings ARRAY ENVIRONMENT NAME...: what the files alone give the names, in the caller's project and region. Where they
# cannot be read: exit status 1, and READ_ERROR has the reason.
read_settings() {
    local -n into=$1
    local environment=$2 name value text
    shift 2
    # shellcheck disable=SC2016  # the inner shell expands them
    text=$(env -i PATH="$PATH" ${PROJECT_ID:+PROJECT_ID="$PROJECT_ID"} ${REGION:+REGION="$REGION"} \
        bash -euc 'source "$1"; source "$2"; shift 2; for name; do echo "$name=${!name}"; done' - \
        "$DEPLOY/env/$environment.env" "$DEPLOY/env/defaults.env" ENVIRONMENT SUFFIX "$@" 2>&1) || {
        READ_ERROR=${text##*$'\n'}
        return 1
    }
    while IFS='=' read -r name value; do
        # shellcheck disable=SC2034,SC2004  # an associative array of the caller's
        into[$name]=$value
    done <<<"$text"
}

# refuse_other_environments NAME SETTING...: ends the script where the caller's shell holds names of another environment
# than the one asked for, or its file those of another file. One name is enough: they are where a script would act. `files`
# of load_environment has what the files say.
refuse_other_environments() {
    local wanted=$1 file other name
    local -A others=()
    shift
    local way_out="start a new shell, or run it as: env -i HOME=\"\$HOME\" PATH=\"\$PATH\" deploy/${0##*/} $wanted ..."
    [[ -z ${ENVIRONMENT:-} || $ENVIRONMENT == "$wanted" ]] ||
        die "you asked for $wanted, but ENVIRONMENT=$ENVIRONMENT is set in this shell; $way_out"
    [[ ${files[ENVIRONMENT]} == "$wanted" ]] ||
        die "deploy/env/$wanted.env has ENVIRONMENT=${files[ENVIRONMENT]}: it must be $wanted, as the file is named"
    [[ -z ${SUFFIX+set} || $SUFFIX == "${files[SUFFIX]}" ]] ||
        die "you asked for $wanted, whose SUFFIX is '${files[SUFFIX]}', but SUFFIX='$SUFFIX' is set in this shell; $way_out"
    for file in "$DEPLOY"/env/*.env; do
        other=$(basename "$file" .env)
        [[ $other != defaults && $other != "$wanted" ]] || continue
        others=()
        read_settings others "$other" "$@" || continue # it cannot be used either, and says so when it is
        [[ "${files[PROJECT_ID]} ${files[REGION]} ${files[POOL]}" != "${others[PROJECT_ID]} ${others[REGION]} ${others[POOL]}" ]] ||
            die "deploy/env/$wanted.env and deploy/env/$other.env both name the worker pool ${files[POOL]}:" \
                "give $wanted a SUFFIX of its own"
        for name in $(identifying_names); do
            [[ -z ${!name:-} || ${!name} == "${files[$name]}" || ${!name} != "${others[$name]}" ]] ||
                die "you asked for $wanted, but this shell holds a name of $other: $name=${!name}" \
                    "($wanted has ${files[$name]}); $way_out"
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
        [[ ${!name} != *[\"\\$'\n\r\t']* && ${!name} != *'${'* ]] ||
            die "$name holds a quote, a backslash, a tab, a line break or \${: it cannot be put into a file"
    done
    for name in VCPUS MEMORY_GIB MIN_INSTANCES MAX_INSTANCES MAX_CONCURRENT_JOBS PARAKEET_ROLLOUT_PERCENT HEALTH_PORT; do
        [[ ${!name} =~ ^(0|[1-9][0-9]{0,4})$ ]] || die "$name=${!name} is not a whole number"
    done
    for name in VCPUS MEMORY_GIB MAX_INSTANCES MAX_CONCURRENT_JOBS HEALTH_PORT; do
        ((${!name} > 0)) || die "$name=0: it must be 1 at least"
    done
    for name in $(setting_names true) $(setting_names false); do
        [[ ${!name} == true || ${!name} == false ]] || die "$name=${!name} is neither true nor false"
    done
    ((PARAKEET_ROLLOUT_PERCENT <= 100)) || die "PARAKEET_ROLLOUT_PERCENT=$PARAKEET_ROLLOUT_PERCENT is above 100"
    ((MIN_INSTANCES <= MAX_INSTANCES)) || die "MIN_INSTANCES=$MIN_INSTANCES is above MAX_INSTANCES=$MAX_INSTANCES"
    for name in BUDGET_USD_PER_MONTH COST_ALERT_USD_PER_DAY; do
        [[ ${!name} =~ ^[0-9]+(\.[0-9]+)?$ ]] || die "$name=${!name} is not a number, such as 50 or 50.5"
    done
    [[ $FALLBACK_BUDGET_USD_PER_DAY =~ ^(none|[0-9]+(\.[0-9]+)?)$ ]] ||
        die "FALLBACK_BUDGET_USD_PER_DAY=$FALLBACK_BUDGET_USD_PER_DAY is neither a number nor none"
}

# check_names: names that Google Cloud would refuse, in the middle of what a script does.
check_names() {
    local LC_ALL=C # letters are those of ASCII
    of_form '^[a-z][-a-z0-9]{4,28}[a-z0-9]$' "6 to 30 small letters, digits and hyphens, a letter first" \
        WORKER_ACCOUNT BUILD_ACCOUNT SCALER_ACCOUNT STARTER_ACCOUNT PUSH_ACCOUNT
    of_form '^[a-z]([-a-z0-9]{0,47}[a-z0-9])?$' "at most 49 small letters, digits and hyphens, a letter first" \
        POOL SCALER STARTER REPOSITORY
    of_form '^[a-z0-9][-_.a-z0-9]{1,61}[a-z0-9]$' "3 to 63 small letters, digits, hyphens, dots and underscores" \
        AUDIO_BUCKET OUTPUT_BUCKET STATE_BUCKET
    of_form '^[A-Za-z][-_.~+%A-Za-z0-9]{2,254}$' "3 to 255 letters, digits and - _ . ~ + %, a letter first" \
        JOBS_TOPIC JOBS_SUBSCRIPTION ${JOBS_SUBSCRIPTION_URGENT:+JOBS_SUBSCRIPTION_URGENT} COMPLETION_TOPIC \
        COMPLETION_SUBSCRIPTION DEAD_LETTER_TOPIC DEAD_LETTER_SUBSCRIPTION COST_SUBSCRIPTION PUSH_SUBSCRIPTION
    of_form '^[-_A-Za-z0-9]{1,255}$' "at most 255 letters, digits, hyphens and underscores" DEEPGRAM_SECRET COST_TABLE
    of_form '^[_A-Za-z0-9]{1,255}$' "at most 255 letters, digits and underscores" COST_DATASET
    of_form '^[-_a-z0-9]{1,63}$' "at most 63 small letters, digits, hyphens and underscores" ENVIRONMENT
}

# of_form EXPRESSION WORDS NAME...
of_form() {
    local expression=$1 words=$2 name
    shift 2
    for name; do
        [[ ${!name} =~ $expression ]] || die "$name=${!name} cannot be such a name: it takes $words"
    done
}
