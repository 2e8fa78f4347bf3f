#!/usr/bin/env bash
# Runs a command with the names and settings of an environment, without leaving any of them in your shell.
#
#   deploy/env.sh ENVIRONMENT COMMAND [ARGUMENT...]
#   deploy/env.sh staging klipstream-worker validate --method parakeet
#   deploy/env.sh production klipstream-worker dlq list
. "$(dirname "$0")/lib.sh"

[[ ${1:-} != -h && ${1:-} != --help ]] || usage
[[ ${1:-} != -* && $# -ge 2 ]] || usage 2
load_environment "$1" >&2
# The worker's own commands know no limit as an empty one.
FALLBACK_BUDGET_USD_PER_DAY=${FALLBACK_BUDGET_USD_PER_DAY/#none/}
export COST_TABLE_NAME=$PROJECT_ID.$COST_DATASET.$COST_TABLE # for `klipstream-worker canary`
shift
PATH=$PATH:${DEPLOY%/*}/.venv/bin # the commands of `make install`, where no others are installed
command -v "$1" >/dev/null || die "$1 is not installed; klipstream-worker comes with: make install"
exec "$@"
