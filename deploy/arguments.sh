# shellcheck shell=bash
# How the scripts of this folder read their arguments. Sourced by lib.sh.

# arguments OPTION... -- ARGUMENT...: fills WORDS with the words and GIVEN with the options, by their names without dashes.
# An OPTION is `--name`, which gives 1, or `--name=`, which needs a value: --name VALUE or --name=VALUE. --help, and an
# option that is none of them, show the script's help and end it. --dry-run sets DRY_RUN.
arguments() {
    local options=' ' name
    declare -gA GIVEN=()
    declare -ga WORDS=()
    while [[ $1 != -- ]]; do
        options+="$1 "
        shift
    done
    shift
    while (($#)); do
        name=${1%%=*}
        if [[ $1 == -h || $1 == --help ]]; then
            usage
        elif [[ $1 != -* ]]; then
            WORDS+=("$1")
        elif [[ $options == *" $1 "* && $1 == "$name" ]]; then
            GIVEN[${name#--}]=1
        elif [[ $options != *" $name= "* ]]; then
            usage 2
        elif [[ $1 != "$name" ]]; then
            GIVEN[${name#--}]=${1#*=}
        else
            [[ -n ${2:-} ]] || die "$name takes a value: $name=..."
            GIVEN[${name#--}]=$2
            shift
        fi
        shift
    done
    # shellcheck disable=SC2034  # lib.sh reads it
    [[ -z ${GIVEN[dry-run]:-} ]] || DRY_RUN=1
}

# arguments_of MOST OPTION... -- ARGUMENT...: the same for a script that acts on an environment, its first word; more than
# MOST words end the script.
arguments_of() {
    local most=$1
    shift
    arguments "$@"
    ((${#WORDS[@]} >= 1 && ${#WORDS[@]} <= most)) || usage 2
}
