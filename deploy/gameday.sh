#!/usr/bin/env bash
# Breaks an environment on purpose, and measures how long until an alert's condition is true and until jobs flow again.
#
#   deploy/gameday.sh ENVIRONMENT [--only SCENE[,SCENE...]]
#   deploy/gameday.sh --local
#
#   ENVIRONMENT  never production; a pool that serves, with alerts (deploy/up.sh)
#   --only       some of the scenes: instances grant budget model revision
#   --local      the scenes that development servers on this machine can hold: kill model; no cloud, no GPU
#
# Everything is put back at the end of each scene, and also after a failure or Ctrl-C. Jobs are the built-in sample.
. "$(dirname "$0")/lib.sh"
source "$DEPLOY/pool.sh"
source "$DEPLOY/api.sh"
source "$DEPLOY/sample_job.sh"

SCENES=(instances grant budget model revision)
RESULTS=() RESTORE=''

main() {
    local scene
    arguments --only= --local -- "$@"
    [[ -z ${GIVEN[only]:-} ]] || IFS=, read -r -a SCENES <<<"${GIVEN[only]}"
    trap 'put_back' EXIT
    trap 'exit 130' INT TERM
    if [[ -n ${GIVEN[local]:-} ]]; then
        source "$DEPLOY/gameday_local.sh"
        local_scenes
    else
        ((${#WORDS[@]} == 1)) || usage 2
        [[ ${WORDS[0]} != production ]] || die "production is not for playing: deploy/gameday.sh staging"
        for scene in "${SCENES[@]}"; do
            declare -F "break_$scene" >/dev/null || die "there is no scene $scene"
        done
        load_environment "${WORDS[0]}"
        require_gcloud
        fetch_pool
        require_pool
        BEFORE=$(live instances)
        [[ $BEFORE -gt 0 ]] || { scale 1 && RESTORE='scale 0'; }
        AT_REST=$RESTORE
        for scene in "${SCENES[@]}"; do
            play "$scene"
        done
    fi
    echo
    printf '# %-10s  %-32s  %s\n' "scene" "the alert's condition is true after" "jobs flow again after"
    printf '# %s\n' "${RESULTS[@]}"
}

put_back() {
    local status=$?
    if [[ -n $RESTORE ]]; then
        echo "# putting back: $RESTORE"
        $RESTORE || echo "error: NOT put back: $RESTORE" >&2
        RESTORE=''
    fi
    [[ -z $SAMPLE_SUBSCRIPTION ]] || remove_sample_subscription
    exit "$status"
}

# play SCENE: breaks, waits for the alert's condition, mends, waits for a job.
play() {
    local scene=$1 alert began detected mended
    alert=$("alert_of_$scene")
    echo
    echo "== $scene: $("what_$scene")"
    RESTORE="mend_$scene"
    began=$SECONDS
    "break_$scene"
    detected=$(until_true "$alert" "$began")
    echo "# $alert: $detected"
    mended=$SECONDS
    "mend_$scene"
    RESTORE=$AT_REST
    (sample_job)
    RESULTS+=("$(printf '%-10s  %-36s  %s s' "$scene" "$alert: $detected" $((SECONDS - mended)))")
}

# until_true ALERT BEGAN: how long its condition took to become true.
until_true() {
    local query waited=0 most=${DETECT_SECONDS:-1800} step=${POLL_SECONDS:-15}
    query=$(render "$DEPLOY/monitoring/alerts/$1.yaml" | sed -n '/query: >-/,/duration:/{/query: >-/d;/duration:/d;p;}' | tr -s ' \n' ' ')
    while ((waited < most)); do
        if [[ -n $(measured "$query" 2>/dev/null || true) ]]; then
            echo "$((SECONDS - $2)) s"
            return
        fi
        sleep "$step"
        waited=$((waited + (step > 0 ? step : 15)))
    done
    echo "not within $most s"
}

# ---- Scenes: what, the alert, how it is broken and mended ----

what_instances() { echo "all instances are taken away while a job waits"; }
alert_of_instances() { echo no-worker; }
break_instances() { COUNT=$(live instances) && scale 0 && leave_a_job; }
mend_instances() { scale "$COUNT"; }

what_grant() { echo "the worker may no longer read the audio bucket"; }
alert_of_grant() { echo fuse-open; }
break_grant() { audio_grant remove-iam-policy-binding && leave_a_job; }
mend_grant() { audio_grant add-iam-policy-binding; }

what_budget() { echo "the day's Deepgram budget is a cent"; }
alert_of_budget() { echo fallback-budget; }
break_budget() { BUDGET=$(live setting FALLBACK_BUDGET_USD_PER_DAY) && relaunch FALLBACK_BUDGET_USD_PER_DAY=0.0001 && leave_a_job deepgram; }
mend_budget() { relaunch "FALLBACK_BUDGET_USD_PER_DAY=$BUDGET"; }

what_model() { echo "a revision whose model file does not exist"; }
alert_of_model() { echo crash-loop; }
break_model() { SERVED=$(live serving) && (relaunch PARAKEET_MODEL_NAME=/nonexistent.nemo) || echo "# refused, as it should be"; }
mend_model() { worker_pools update-instance-split --to-revisions="$SERVED=100" && fetch_pool; }

what_revision() { echo "all instances are pinned to a revision that cannot start"; }
alert_of_revision() { echo no-worker; }
break_revision() {
    SERVED=$(live serving)
    (relaunch PARAKEET_MODEL_NAME=/nonexistent.nemo) || true
    fetch_pool
    worker_pools update-instance-split --to-latest || true
    leave_a_job
}
mend_revision() { mend_model; }

audio_grant() {
    run gcloud storage buckets "$1" "gs://$AUDIO_BUCKET" --member="serviceAccount:$(account "$WORKER_ACCOUNT")" \
        --role=roles/storage.objectViewer --format=none
}

# leave_a_job [METHOD]: publish a job and return; it is done when everything is mended.
leave_a_job() {
    local id
    id=gameday-$(date -u +%Y%m%d-%H%M%S)-$RANDOM
    run gcloud storage cp "$DEPLOY/../worker/embedded/data/two-voices.opus" "gs://$AUDIO_BUCKET/samples/$id.opus"
    run gcloud pubsub topics publish "$JOBS_TOPIC" \
        --message="{\"job_id\": \"$id\", \"video_id\": \"$id\", \"audio_uri\": \"gs://$AUDIO_BUCKET/samples/$id.opus\", \"force_method\": \"${1:-auto}\"}"
}

main "$@"
