#!/usr/bin/env bash
# Rolls an image out to the worker pool of an environment, and proves that it starts.
#
#   deploy/deploy.sh ENVIRONMENT --image IMAGE@sha256:DIGEST [--instances N] [--canary PERCENT] [OPTION...]
#   deploy/deploy.sh ENVIRONMENT --promote [--dry-run]
#   deploy/deploy.sh ENVIRONMENT --image ... --render
#
#   --image           by digest: a tag can move between a canary and the rest
#   --instances       how many; default: as many as are asked for now, 1 for a new pool
#   --canary          the new revision gets this share of the instances (2 instances: 50), the one that serves the rest
#   --promote         end a canary: the latest revision gets all instances
#   --from-files      take the settings that are kept otherwise from deploy/env (see below)
#   --sample-job      when a worker is ready, have it do one short job, and wait for its event
#   --no-wait         do not wait until a worker of the new revision is ready
#   --no-quota-check  leave the quotas to the server
#   --diff            print what would change, live -> new, after the server has validated it, and stop
#   --render          print the pool's YAML and stop
#   --dry-run         print every command, run none
#
# Kept from the revision that serves, unless your shell sets them or --from-files is given: PARAKEET_ROLLOUT_PERCENT,
# FALLBACK_BUDGET_USD_PER_DAY, VCPUS, MEMORY_GIB, and the number of instances. Where that number is 0, one instance is
# started to prove the revision, and the count is handed back.
#
# The other canary is by share of videos, on any number of instances: PARAKEET_ROLLOUT_PERCENT=10 deploy/deploy.sh ...,
# then 50, then 100. The other videos keep the Deepgram path.
. "$(dirname "$0")/lib.sh"
source "$DEPLOY/pool.sh"
source "$DEPLOY/quotas.sh"
source "$DEPLOY/sample_job.sh"

KEPT=(PARAKEET_ROLLOUT_PERCENT FALLBACK_BUDGET_USD_PER_DAY VCPUS MEMORY_GIB)

main() {
    local canary render from_files asked='' before
    POOL_EXISTS='' HANDED_BACK='' IMAGE_BEFORE=''
    arguments_of 1 --dry-run --image= --instances= --canary= --promote --from-files --sample-job --no-wait --no-quota-check \
        --diff --render -- "$@"
    IMAGE=${GIVEN[image]:-} INSTANCES=${GIVEN[instances]:-}
    canary=${GIVEN[canary]:-} render=${GIVEN[render]:-} from_files=${GIVEN[from-files]:-}
    [[ -z ${GIVEN[no-quota-check]:-} ]] || QUOTA_CHECK=0
    [[ -z $render ]] || DRY_RUN=1
    asked=$(set_in_shell) # before the files are read
    if [[ -n $render ]]; then load_environment "${WORDS[0]}" >/dev/null; else load_environment "${WORDS[0]}"; fi

    if [[ -n ${GIVEN[promote]:-} ]]; then
        require_gcloud
        [[ -n $DRY_RUN ]] || require_canary
        worker_pools update-instance-split --to-latest
        return
    fi
    [[ $IMAGE =~ ^[^[:space:]\"]+@sha256:[0-9a-f]{64}$ ]] || die "--image must name a digest: ...@sha256:..., not '$IMAGE'"
    [[ -z $INSTANCES || $INSTANCES =~ ^(0|[1-9][0-9]?)$ ]] || die "--instances $INSTANCES is not a whole number"
    [[ -z $canary || $canary =~ ^[1-9][0-9]?$ ]] || die "--canary $canary is not a percentage from 1 to 99"
    if [[ -n $render ]]; then
        : "${INSTANCES:=1}"
        render_pool
        return
    fi
    require_gcloud
    [[ -n $DRY_RUN ]] || fetch_pool
    [[ -n $from_files || -z $POOL_EXISTS ]] || keep "$asked"
    before=${INSTANCES:-$(instances_now)}
    INSTANCES=$((before > 0 ? before : 1))
    ((INSTANCES <= MAX_INSTANCES)) || die "$INSTANCES instances; MAX_INSTANCES is $MAX_INSTANCES"
    require_image
    [[ -z $canary ]] || require_room_for_a_canary "$canary"
    if [[ -n $POOL_EXISTS ]]; then require_quota $((INSTANCES + 1)); else require_quota "$INSTANCES" new; fi
    write_pool "$canary"
    [[ -z ${GIVEN[diff]:-} ]] || return 0
    trap 'hand_back "$BEFORE"' EXIT
    trap 'exit 130' INT TERM
    BEFORE=$before
    roll_out
    [[ -n ${GIVEN[no-wait]:-} || -n $DRY_RUN ]] || await_ready "$NEW_REVISION"
    [[ -z ${GIVEN[sample-job]:-} || -n $DRY_RUN ]] || sample_job
    remember_image
}

# Of the settings that are kept, those that the caller's shell sets.
set_in_shell() {
    local name
    for name in "${KEPT[@]}"; do
        [[ -z ${!name:-} ]] || echo -n "$name "
    done
}

# keep NAMES: takes the settings of the revision that serves, except NAMES.
keep() {
    local name now
    for name in "${KEPT[@]}"; do
        now=$(live setting "$name") || continue
        [[ $name != FALLBACK_BUDGET_USD_PER_DAY || -n $now ]] || now=none
        [[ " $1" != *" $name "* && -n $now && $now != "${!name}" ]] || continue
        echo "# kept: $name=$now (the files say ${!name}; --from-files takes that)"
        export "$name=$now"
    done
    check_settings "${KEPT[@]}"
}

instances_now() {
    if [[ -n $POOL_EXISTS ]]; then live instances; else echo 1; fi
}

# An image of another registry cannot be looked up.
require_image() {
    [[ $IMAGE == *-docker.pkg.dev/* ]] || return 0
    [[ -z $DRY_RUN ]] || { run gcloud artifacts docker images describe "$IMAGE" && return; }
    found gcloud artifacts docker images describe "$IMAGE" ||
        die "there is no image $IMAGE; deploy/up.sh $ENVIRONMENT --build makes one"
}

# Each side of a canary needs an instance of its own.
require_room_for_a_canary() {
    local smaller=$(($1 < 50 ? $1 : 100 - $1))
    local least=$(((99 + smaller) / smaller))
    [[ -z $DRY_RUN ]] || die "a canary depends on the pool that stands: --diff shows it, and changes nothing"
    [[ -n $POOL_EXISTS ]] || die "a canary needs a revision that runs already"
    live serving >/dev/null || die "the revision that served is gone, and a canary is compared with it: deploy without --canary"
    ((INSTANCES >= least)) ||
        die "a canary of $1 % needs $least instances, or one side has none; $INSTANCES are asked for: --instances $least"
}

# What --promote ends: two revisions share the instances, and the latest of them became ready.
require_canary() {
    fetch_pool
    require_pool
    show_revisions
    live canary >/dev/null ||
        die "no canary runs, see above; to give all instances to a revision: deploy/rollback.sh $ENVIRONMENT REVISION"
}

# write_pool CANARY: renders it, has the server validate it, and prints what would change.
write_pool() {
    local file
    file=$RENDERED/$POOL.yaml
    own_folder
    render_pool >"$file"
    [[ -z $1 ]] || split "$(live serving)" "$1" >>"$file"
    POOL_FILE=$file
    run gcloud beta run worker-pools replace "$file" --dry-run ||
        die "the server refuses $file, see above; nothing was changed"
    if [[ -n $POOL_EXISTS ]]; then
        show_revisions
        echo "# live -> new:"
        live diff "$file" | sed '/./!d;s/^/#   /'
        echo "#   instances                      $(live instances) -> $INSTANCES"
    elif [[ -z $DRY_RUN ]]; then
        echo "# a new pool: $file"
    fi
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

roll_out() {
    local served='' newest=''
    if [[ -n $POOL_EXISTS ]]; then
        newest=$(live latest || true)
        fetch_pool
        [[ $(live latest || true) == "$newest" ]] ||
            die "another deployment made $(live latest) in the meantime; nothing was changed. Run it again"
        served=$(live serving) || true
        IMAGE_BEFORE=$(live image)
    fi
    run gcloud beta run worker-pools replace "$POOL_FILE" ||
        die "the new revision did not start${served:+; $served goes on serving}." \
            "docs/operate/runbook.md, \"It does not start\"; its log: deploy/status.sh $ENVIRONMENT"
    run gcloud beta run worker-pools describe "$POOL" --region="$REGION"
    [[ -z $DRY_RUN ]] || return 0
    fetch_pool
    NEW_REVISION=$(live latest)
    [[ $(live image "$NEW_REVISION") == "$IMAGE" ]] ||
        die "another deployment made $NEW_REVISION, with another image, in the meantime. Run it again: deploy/status.sh $ENVIRONMENT"
    echo "# new revision: $NEW_REVISION"
}

# hand_back COUNT: where none were asked for before, none are again, also after a failure or Ctrl-C; unless the autoscaler
# has asked for more in the meantime. Runs as the script ends.
hand_back() {
    local status=$?
    [[ -z $SAMPLE_SUBSCRIPTION ]] || remove_sample_subscription
    if [[ -z $DRY_RUN && $1 == 0 && -z $HANDED_BACK ]]; then
        HANDED_BACK=1
        fetch_pool
        if [[ -n $POOL_EXISTS && $(live instances) == 1 ]]; then
            echo "# handing the instance count back: 1 -> 0"
            scale 0
        fi
    fi
    exit "$status"
}

# The registry's cleanup keeps what these tags name: what serves, and what a rollback would take.
remember_image() {
    local tags=${IMAGE%@*}
    [[ $IMAGE == *-docker.pkg.dev/* ]] || return 0
    [[ -z $IMAGE_BEFORE || $IMAGE_BEFORE == "$IMAGE" ]] ||
        run gcloud artifacts docker tags add "$IMAGE_BEFORE" "${tags%:*}:$ENVIRONMENT-before"
    run gcloud artifacts docker tags add "$IMAGE" "${tags%:*}:$ENVIRONMENT"
}

main "$@"
