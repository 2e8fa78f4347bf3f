#!/usr/bin/env bash
# Rolls an image out to the worker pool of an environment.
#
#   deploy/deploy.sh ENVIRONMENT --image IMAGE@sha256:DIGEST [--instances N] [--canary PERCENT] [--dry-run]
#   deploy/deploy.sh ENVIRONMENT --promote [--dry-run]
#   deploy/deploy.sh ENVIRONMENT --image ... --render
#
#   --image      by digest: a tag can move between a canary and the rest
#   --instances  how many; default: as many as run now, 1 for a new pool
#   --canary     the new revision gets this share of the instances (2 instances: 50), the one that runs now the rest
#   --promote    end a canary: the latest revision gets all instances
#   --render     print the pool's YAML and stop
#   --dry-run    print every command, run none
#
# The other canary is by share of videos, on any number of instances: PARAKEET_ROLLOUT_PERCENT=10 deploy/deploy.sh ...,
# then 50, then 100. The other videos keep the Deepgram path.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

GPU_QUOTA=NvidiaL4GpuAllocNoZonalRedundancyPerProjectRegion

main() {
    local environment='' canary='' promote='' render=''
    IMAGE='' INSTANCES=''
    while (($#)); do
        case $1 in
        --dry-run) DRY_RUN=1 ;;
        --image) IMAGE=${2:?} && shift ;;
        --instances) INSTANCES=${2:?} && shift ;;
        --canary) canary=${2:?} && shift ;;
        --promote) promote=1 ;;
        --render) render=1 ;;
        -h | --help) usage ;;
        -*) usage 2 ;;
        *) environment=$1 ;;
        esac
        shift
    done
    [[ -n $environment ]] || usage 2
    [[ -z $render ]] || DRY_RUN=1
    if [[ -n $render ]]; then load_environment "$environment" >/dev/null; else load_environment "$environment"; fi

    if [[ -n $promote ]]; then
        worker_pools update-instance-split --to-latest
        return
    fi
    [[ $IMAGE == *@sha256:* ]] || die "--image must name a digest: ...@sha256:..."
    : "${INSTANCES:=$(running_instances)}"
    export IMAGE INSTANCES
    if [[ -n $render ]]; then
        render "$DEPLOY/worker-pool.yaml"
        return
    fi
    ((INSTANCES <= MAX_INSTANCES)) || die "$INSTANCES instances; MAX_INSTANCES is $MAX_INSTANCES"
    require_gpu_quota
    roll_out "$canary"
}

running_instances() {
    value 1 described 'metadata.annotations["run.googleapis.com/manualInstanceCount"]' | grep . || echo 1
}

described() {
    gcloud beta run worker-pools describe "$POOL" --region="$REGION" --format="value($1)" 2>/dev/null
}

# An instance beyond the quota never starts, and the pool says only that it is not ready.
require_gpu_quota() {
    local granted
    local -a ask=(gcloud beta quotas info list --service=run.googleapis.com --project="$PROJECT_ID"
        --flatten='dimensionsInfos[]' --filter="quotaId=$GPU_QUOTA AND dimensionsInfos.applicableLocations:$REGION"
        --format='value(dimensionsInfos.details.value)')
    if [[ -n $DRY_RUN ]]; then
        run "${ask[@]}"
        return
    fi
    granted=$("${ask[@]}") || die "cannot read the quota $GPU_QUOTA: roles/cloudquotas.viewer is needed"
    # During a roll-out old and new instances run side by side.
    ((${granted:-0} > INSTANCES)) ||
        die "the quota for L4s in $REGION is ${granted:-0}; $((INSTANCES + 1)) are needed to replace $INSTANCES"
    echo "# quota for L4s in $REGION: $granted"
}

# roll_out CANARY: the new revision with all instances, or with that share of them.
roll_out() {
    local canary=$1 serving='' file
    [[ -z $canary ]] || serving=$(value SERVING_REVISION described status.latestReadyRevisionName) || true
    [[ -z $canary || -n $serving ]] || die "a canary needs a revision that runs already"
    file=$(mktemp --suffix=.yaml)
    render "$DEPLOY/worker-pool.yaml" >"$file"
    [[ -z $canary ]] || split "$serving" "$canary" >>"$file"
    echo "# $file:"
    sed 's/^/#   /' "$file"
    run gcloud beta run worker-pools replace "$file"
    rm "$file"
    run gcloud beta run worker-pools describe "$POOL" --region="$REGION"
}

split() {
    cat <<YAML
  instanceSplits:
    - revisionName: "$1"
      percent: $((100 - $2))
    - latestRevision: true
      percent: $2
YAML
}

main "$@"
