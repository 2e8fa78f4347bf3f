# shellcheck shell=bash
# One short job through a deployed worker, with gcloud alone. Sourced.
#
# Its event comes by a subscription of its own, so that the pipeline's loses nothing.

SAMPLE_SUBSCRIPTION='' # while there is one

# sample_job: sends the sample and waits for its completed event; ends the script where it fails or none comes.
sample_job() {
    local id waited=0 most=${SAMPLE_SECONDS:-300} step=${POLL_SECONDS:-5} event='' method=''
    id=sample-$(date -u +%Y%m%d-%H%M%S)-$$
    SAMPLE_SUBSCRIPTION=${COMPLETION_TOPIC:0:200}-$id # of 255 characters at most
    [[ $ENABLE_GPU_TRANSCRIPTION == false ]] || method=', "force_method": "parakeet"'
    run gcloud storage cp "$DEPLOY/../worker/embedded/data/two-voices.opus" "gs://$AUDIO_BUCKET/samples/$id.opus"
    run gcloud pubsub subscriptions create "$SAMPLE_SUBSCRIPTION" --topic="$COMPLETION_TOPIC" --expiration-period=1d \
        --message-filter="attributes.video_id = \"$id\""
    run gcloud pubsub topics publish "$JOBS_TOPIC" \
        --message="{\"job_id\": \"$id\", \"video_id\": \"$id\", \"audio_uri\": \"gs://$AUDIO_BUCKET/samples/$id.opus\"$method}"
    while ((waited < most)); do
        event=$(answer gcloud pubsub subscriptions pull "$SAMPLE_SUBSCRIPTION" --auto-ack --limit=10 --format=json |
            python3 -I "$DEPLOY/sample_event.py")
        [[ -z $event ]] || break
        sleep "$step"
        waited=$((waited + (step > 0 ? step : 5)))
    done
    remove_sample_subscription
    run gcloud storage rm --recursive "gs://$AUDIO_BUCKET/samples/$id.opus" "gs://$OUTPUT_BUCKET/$id" ||
        echo "# the sample's audio and transcript stay below $id"
    [[ -n $event ]] || die "the sample job $id has not ended within $most s: deploy/status.sh $ENVIRONMENT"
    [[ $event == completed* ]] || die "the sample job $id: $event"
    echo "# sample job $id: $event"
}

remove_sample_subscription() {
    local name=$SAMPLE_SUBSCRIPTION
    SAMPLE_SUBSCRIPTION=''
    run gcloud pubsub subscriptions delete "$name" || echo "# $name expires by itself after a day"
}
