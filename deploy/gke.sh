#!/usr/bin/env bash
# Prints the manifest of the worker on GKE, Deployment and autoscaling by KEDA, ready to be applied. Calls nothing.
#
#   deploy/gke.sh ENVIRONMENT --image IMAGE@sha256:DIGEST | kubectl apply -f -
#
# Topics, buckets and grants are those of provision.sh. Beforehand, once: a node pool with L4s, KEDA, and
#   kubectl create serviceaccount transcription-worker          # WORKER_ACCOUNT, bound by workload identity
#   kubectl create secret generic deepgram-api-key --from-literal=latest=...        # DEEPGRAM_SECRET; not without the fallback
. "$(dirname "$0")/lib.sh"

main() {
    arguments_of 1 --image= -- "$@"
    IMAGE=${GIVEN[image]:-} INSTANCES=1
    [[ $IMAGE =~ ^[^[:space:]\"]+@sha256:[0-9a-f]{64}$ ]] || die "--image must name a digest: ...@sha256:..., not '$IMAGE'"
    load_environment "${WORDS[0]}" >&2
    export IMAGE INSTANCES
    render "$DEPLOY/autoscaling/gke.yaml"
    # The same indentation: both are a list of containers in the template of a pod.
    render_pool | sed -n '/^          env:$/,$p'
    echo '            - name: WORKER_REVISION'
    echo "              value: \"${IMAGE##*@sha256:}\""
    echo '---'
    render "$DEPLOY/autoscaling/keda.yaml"
}

main "$@"
