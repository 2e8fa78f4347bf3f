# shellcheck shell=bash
# Two things that gcloud has no command for, asked of the APIs themselves. Sourced.

# api URL [CURL OPTION...]: the answer's body. The token is handed over on stdin, where no list of processes shows it.
api() {
    local url=$1 token
    shift
    token=$(answer gcloud auth print-access-token 2>/dev/null)
    curl --silent --show-error --fail --max-time 20 --config - "$@" "$url" <<<"header = \"Authorization: Bearer $token\""
}

# run_api URL CURL OPTION...: `api`, printed as a command that can be pasted; in a dry run only printed.
run_api() {
    local words
    printf -v words ' %q' "${@:2}" "$1"
    # shellcheck disable=SC2016  # the shell that it is pasted into asks for the token
    echo 'curl --silent --show-error --fail --header "Authorization: Bearer $(gcloud auth print-access-token)"'"$words"
    [[ -n $DRY_RUN ]] || api "$@" >/dev/null
}

# missing_permissions PERMISSION...: those of them that the caller does not have on the project, one a line.
missing_permissions() {
    local answer body permission
    printf -v body '"%s",' "$@"
    answer=$(api "https://cloudresourcemanager.googleapis.com/v1/projects/$PROJECT_ID:testIamPermissions" \
        --request POST --header 'Content-Type: application/json' --data "{\"permissions\": [${body%,}]}") || return 1
    for permission; do
        [[ $answer == *"\"$permission\""* ]] || echo "$permission"
    done
}

# measured QUERY: the value of a PromQL query with one result; empty where there is no sample.
measured() {
    api "https://monitoring.googleapis.com/v1/projects/$PROJECT_ID/location/global/prometheus/api/v1/query" \
        --get --data-urlencode "query=$1" |
        python3 -I -c 'import json, sys; r = json.load(sys.stdin)["data"]["result"]; print(r[0]["value"][1] if r else "")'
}
