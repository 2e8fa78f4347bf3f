#!/usr/bin/env bash
# From an empty project to a proven worker, or from any state to the one that deploy/ describes. Staging first.
#
#   deploy/up.sh ENVIRONMENT [--image IMAGE@sha256:DIGEST | --build] [--no-quota-check]
#   deploy/up.sh ENVIRONMENT --image IMAGE@sha256:DIGEST --dry-run
#
#   --image    what to deploy; default: the image that serves now
#   --build    build and push the commit that is checked out (35 minutes), unless that was done before, and deploy it
#   --dry-run  print every command, as if nothing existed yet; check and run none
#
#   DEEPGRAM_API_KEY  where the secret has no version yet: it becomes the first one
#   BILLING_ACCOUNT, PIPELINE_MEMBER, OPERATORS_MEMBER, ALERT_EMAIL  see deploy/env/defaults.env
#
# First everything is checked, and nothing is changed where a check fails: login, gcloud, project and billing, what you may
# do, quotas, the key, the image, the pool as the server would take it, what it costs. Then: provision, build, deploy one
# instance at least, wait for its `worker.ready`, one sample job, hand the instance count back, alerts, autoscaler, links.
# What is as it should be is left alone; a run that was cut off is repeated and goes on where it was.
. "$(dirname "$0")/lib.sh"
source "$DEPLOY/pool.sh"
source "$DEPLOY/quotas.sh"
source "$DEPLOY/api.sh"

CALLER=() # your shell's variables: the other scripts must see what you set, not what is read from files here
for EXPORTED in $(compgen -e); do
    CALLER+=("$EXPORTED=${!EXPORTED}")
done
REGISTRY='' STEP=preflight CHANGED='' KEY_MISSING='' DIFFERS=''
PERMISSIONS=(serviceusage.services.enable resourcemanager.projects.setIamPolicy iam.serviceAccounts.create
    iam.serviceAccounts.actAs pubsub.topics.create pubsub.subscriptions.create storage.buckets.create
    secretmanager.secrets.create bigquery.datasets.create artifactregistry.repositories.create run.services.create
    logging.logMetrics.create monitoring.alertPolicies.create)

main() {
    local build
    arguments_of 1 --image= --build --no-quota-check --dry-run -- "$@"
    IMAGE=${GIVEN[image]:-} build=${GIVEN[build]:-}
    [[ -z ${GIVEN[no-quota-check]:-} ]] || QUOTA_CHECK=0
    [[ -z $IMAGE || -z $build ]] || usage 2
    trap '(($? == 0)) || echo "# stopped at: $STEP. When that is mended, run it again: it goes on from there" >&2' EXIT
    trap 'echo "error: interrupted" >&2; exit 130' INT TERM
    load_environment "${WORDS[0]}"
    REGISTRY=$REGION-docker.pkg.dev/$PROJECT_ID/$REPOSITORY/worker
    if [[ -n $DRY_RUN ]]; then
        rehearse
        return
    fi

    preflight "$build"
    provision
    add_key
    [[ -z $build ]] || build
    deploy
    part watched monitor.sh "$(fingerprint monitor.sh 'monitoring/*' 'monitoring/*/*')" alerts and dashboard
    part scaled autoscale.sh "$(fingerprint autoscale.sh autoscaling/crema.yaml)" autoscaler
    links
}

# What a dry run prints: the commands of the other scripts, one after the other.
rehearse() {
    [[ -n $IMAGE ]] || die "a dry run needs --image IMAGE@sha256:...: without it the image is looked up, or built"
    child provision.sh "$ENVIRONMENT" --dry-run
    # shellcheck disable=SC2016  # the shell that it is pasted into has the key
    [[ $ENABLE_FALLBACK == false ]] ||
        echo 'printf %s "$DEEPGRAM_API_KEY" | '"$(quoted gcloud secrets versions add "$DEEPGRAM_SECRET" --data-file=-)"
    child deploy.sh "$ENVIRONMENT" --image "$IMAGE" --dry-run
    child monitor.sh "$ENVIRONMENT" --dry-run
    child autoscale.sh "$ENVIRONMENT" --dry-run
}

# step TEXT: names what follows, with the time since the beginning.
step() {
    STEP=$*
    printf '\n== %3d s  %s\n' "$SECONDS" "$*"
}

# ---- Checks: each ends the script with one line, before anything is changed ----

preflight() {
    local build=$1
    step "preflight: login, gcloud, project, billing"
    require_gcloud
    check_billing
    step "preflight: what you may do"
    check_permissions
    step "preflight: the existing pool, image, key"
    fetch_pool
    check_image "$build"
    check_key
    step "preflight: quotas"
    if [[ -n $POOL_EXISTS ]]; then require_quota $(($(live instances) + 1)); else require_quota 1 new; fi
    step "preflight: the server's opinion of the pool"
    [[ -z $IMAGE ]] || check_pool
    step "preflight: what it costs"
    show_cost
}

check_billing() {
    local enabled
    enabled=$(answer gcloud billing projects describe "$PROJECT_ID" --format='value(billingEnabled)' 2>/dev/null) || {
        echo "# whether the project has a billing account cannot be read; it needs one"
        return
    }
    [[ $enabled == True ]] || die "project $PROJECT_ID has no billing account:" \
        "https://console.cloud.google.com/billing/linkedaccount?project=$PROJECT_ID"
}

check_permissions() {
    local missing
    if ! missing=$(missing_permissions "${PERMISSIONS[@]}" 2>/dev/null); then
        echo "# your permissions cannot be tested before cloudresourcemanager.googleapis.com is enabled"
        return
    fi
    [[ -z $missing ]] || die "you lack ${missing//$'\n'/, } on project $PROJECT_ID: ask for roles/owner, or" \
        "the administrator roles of those services"
}

check_image() {
    local build=$1
    [[ -z $build ]] || { check_build && return; }
    if [[ -z $IMAGE ]]; then
        [[ -n $POOL_EXISTS ]] || die "there is no pool yet whose image could be kept: --build, or --image IMAGE@sha256:..."
        IMAGE=$(live image)
    fi
    [[ $IMAGE =~ ^[^[:space:]\"]+@sha256:[0-9a-f]{64}$ ]] || die "--image must name a digest: ...@sha256:..., not '$IMAGE'"
    [[ $IMAGE != *-docker.pkg.dev/* ]] || found gcloud artifacts docker images describe "$IMAGE" ||
        die "there is no image $IMAGE: --build makes one"
    echo "# image: $IMAGE"
}

check_build() {
    git -C "$DEPLOY" rev-parse HEAD >/dev/null 2>&1 || die "--build needs a git checkout, for the image is named after its commit"
    COMMIT=$(git -C "$DEPLOY" rev-parse HEAD)
    git -C "$DEPLOY" diff --quiet HEAD -- ||
        die "there are changes that are not committed: commit them, for the image is named after its commit"
}

# The worker does not start with a secret that has no version.
check_key() {
    local versions=''
    [[ -z ${DEEPGRAM_API_KEY:-} || $DEEPGRAM_API_KEY =~ ^[[:graph:]]+$ ]] ||
        die "DEEPGRAM_API_KEY holds a blank or a line break: set it to the key alone"
    [[ $ENABLE_FALLBACK != false ]] || { echo "# ENABLE_FALLBACK is false: no Deepgram key" && return; }
    ! found gcloud secrets describe "$DEEPGRAM_SECRET" ||
        versions=$(answer gcloud secrets versions list "$DEEPGRAM_SECRET" --filter=state=ENABLED --limit=1 --format='value(name)')
    [[ -n $versions || -n ${DEEPGRAM_API_KEY:-} ]] ||
        die "the secret $DEEPGRAM_SECRET has no version: set DEEPGRAM_API_KEY for this command, or ENABLE_FALLBACK=false"
    [[ -z $versions || -z ${DEEPGRAM_API_KEY:-} ]] ||
        echo "# DEEPGRAM_API_KEY is not used: $DEEPGRAM_SECRET has a key. Another one: docs/operate/runbook.md, \"Rotate the Deepgram key\""
    [[ -n $versions ]] || KEY_MISSING=1
}

# What the server objects to before there are APIs and accounts says nothing about the pool.
check_pool() {
    local said
    if said=$(child deploy.sh "$ENVIRONMENT" --image "$IMAGE" --diff --no-quota-check 2>&1 | without_remarks); then
        grep '^#' <<<"$said" || true
        DIFFERS=$(sed -n '/^# live -> new:/,$p' <<<"$said" | sed '1d;/ -> /!d;/^#   instances /d')
        return
    fi
    DIFFERS=unknown
    [[ -z $POOL_EXISTS && $said =~ (disabled|has\ not\ been\ used|[Ss]ervice\ account|actAs|permission) ]] ||
        die "$(grep -E '^(ERROR|error)' <<<"$said" | head -1 | sed 's/^error: //')"
    echo "# not told before it is provisioned"
}

# List prices, from the price book of this checkout.
show_cost() {
    local hour
    local -x LC_ALL=C # prices have a point
    hour=$(awk -v vcpus="$VCPUS" -v gib="$MEMORY_GIB" -F' *= *' '
        /^\[/ { part = $1 }
        part == "[gpu]" && $1 == "usd_per_second" { gpu = $2 }
        part == "[vcpu]" && $1 == "usd_per_second" { vcpu = $2 }
        part == "[memory]" && $1 == "usd_per_gib_second" { memory = $2 }
        END { printf "%.3f", 3600 * (gpu + vcpus * vcpu + gib * memory) }' "$(price_book)")
    awk -v hour="$hour" -v least="$MIN_INSTANCES" -v most="$MAX_INSTANCES" 'BEGIN {
        printf "# an instance: $%.3f an hour; in a month of 730 hours: $%.0f at MIN_INSTANCES=%d, $%.0f at MAX_INSTANCES=%d all the time\n",
            hour, hour * 730 * least, least, hour * 730 * most, most }'
    echo "# Deepgram: at most $FALLBACK_BUDGET_USD_PER_DAY dollars a day (FALLBACK_BUDGET_USD_PER_DAY)"
}

price_book() {
    find "$DEPLOY/../worker" -name price_book.toml | head -1
}

# ---- Steps ----

# child SCRIPT ARGUMENT...: another script, in the environment that this one was called in.
child() {
    env -i "${CALLER[@]}" "$DEPLOY/$1" "${@:2}"
}

# Ctrl-C reaches the whole pipeline: what the other script still says as it cleans up must have somewhere to go.
indented() {
    local line
    trap '' INT TERM
    while IFS= read -r line || [[ -n $line ]]; do
        printf '  %s\n' "$line"
    done
}

# fingerprint PATTERN...: of those files of deploy/ and all settings: what was made from them is as it should be while it
# stays the same.
fingerprint() {
    (
        cd "$DEPLOY"
        # shellcheck disable=SC2048  # patterns of files
        for file in lib.sh env/defaults.env "env/$ENVIRONMENT.env" $*; do
            [[ ! -f $file ]] || cat "$file"
        done
        for name in $(setting_names); do
            echo "$name=${!name}"
        done
    ) | checksum
}

# The label of the jobs topic under which the fingerprint of a part was noted when it was made.
noted() {
    answer gcloud pubsub topics describe "$JOBS_TOPIC" --format="value(labels.$1)" 2>/dev/null || true
}

note() {
    run gcloud pubsub topics update "$JOBS_TOPIC" --update-labels="$1=$2"
    CHANGED=1
}

# part LABEL SCRIPT FINGERPRINT NAME...: runs the script, unless that was done with the same files and settings.
part() {
    local label=$1 script=$2 print=$3
    shift 3
    step "$*"
    if [[ $(noted "$label") == "$print" ]]; then
        echo "# nothing to do: $*, as of $print"
        return
    fi
    child "$script" "$ENVIRONMENT" 2>&1 | indented
    note "$label" "$print"
}

# Looks whether everything stands, too: somebody may have deleted a thing.
provision() {
    local print missing=''
    step "provision"
    print=$(fingerprint provision.sh 'lifecycle/*' 'bigquery/*' registry-cleanup.json)
    if [[ $(noted provisioned) == "$print" ]]; then
        missing=$(what_is_missing)
        [[ -n $missing ]] || { echo "# nothing to do: provisioned, as of $print" && return; }
        echo "# missing: ${missing//$'\n'/, }"
    fi
    child provision.sh "$ENVIRONMENT" 2>&1 | indented
    note provisioned "$print"
}

what_is_missing() {
    local name
    for name in "$JOBS_TOPIC" "$COMPLETION_TOPIC" "$DEAD_LETTER_TOPIC"; do
        found gcloud pubsub topics describe "$name" || echo "topic $name"
    done
    for name in "$JOBS_SUBSCRIPTION" "$COMPLETION_SUBSCRIPTION" "$DEAD_LETTER_SUBSCRIPTION" "$COST_SUBSCRIPTION" \
        ${JOBS_SUBSCRIPTION_URGENT:+"$JOBS_SUBSCRIPTION_URGENT"}; do
        found gcloud pubsub subscriptions describe "$name" || echo "subscription $name"
    done
    for name in "$AUDIO_BUCKET" "$OUTPUT_BUCKET" "$STATE_BUCKET"; do
        found gcloud storage buckets describe "gs://$name" || echo "bucket $name"
    done
    found gcloud iam service-accounts describe "$(account "$WORKER_ACCOUNT")" || echo "account $WORKER_ACCOUNT"
}

add_key() {
    [[ -n ${KEY_MISSING:-} ]] || return 0
    step "Deepgram's key"
    echo "gcloud secrets versions add $DEEPGRAM_SECRET --data-file=-"
    printf %s "$DEEPGRAM_API_KEY" | gcloud secrets versions add "$DEEPGRAM_SECRET" --data-file=- >/dev/null
    CHANGED=1
}

build() {
    local digest
    step "build $COMMIT"
    if ! found gcloud artifacts docker images describe "$REGISTRY:$COMMIT"; then
        (cd "$DEPLOY/.." && run gcloud builds submit --config=cloudbuild.yaml --region=global \
            --service-account="projects/$PROJECT_ID/serviceAccounts/$(account "$BUILD_ACCOUNT")" \
            --substitutions="COMMIT_SHA=$COMMIT,_REGION=$REGION,_REPOSITORY=$REPOSITORY")
        CHANGED=1
    else
        echo "# nothing to do: $REGISTRY:$COMMIT was built before"
    fi
    digest=$(answer gcloud artifacts docker images describe "$REGISTRY:$COMMIT" --format='value(image_summary.digest)')
    IMAGE=$REGISTRY@$digest
    check_pool
}

deploy() {
    step "deploy, worker.ready, one sample job"
    if [[ -n $POOL_EXISTS && -z $DIFFERS ]]; then
        echo "# nothing to do: $(live serving) serves $IMAGE with these settings"
        return
    fi
    local -a options=(--image "$IMAGE" --sample-job)
    [[ $QUOTA_CHECK == 1 ]] || options+=(--no-quota-check)
    child deploy.sh "$ENVIRONMENT" "${options[@]}" 2>&1 | indented
    CHANGED=1
}

links() {
    local console=https://console.cloud.google.com
    step "done"
    [[ -n $CHANGED ]] || echo "# nothing was changed: $ENVIRONMENT is as deploy/ describes it"
    cat <<LINKS
# pool       $console/run/detail/$REGION/$POOL/revisions?project=$PROJECT_ID
# log        $console/logs/query;query=resource.type%3D%22cloud_run_worker_pool%22%20resource.labels.worker_pool_name%3D%22$POOL%22?project=$PROJECT_ID
# dashboards $console/monitoring/dashboards?project=$PROJECT_ID
# alerts     $console/monitoring/alerting?project=$PROJECT_ID
# jobs       $console/cloudpubsub/topic/detail/$JOBS_TOPIC?project=$PROJECT_ID
# next: deploy/status.sh $ENVIRONMENT; your own audio: deploy/env.sh $ENVIRONMENT klipstream-worker submit gs://$AUDIO_BUCKET/...
LINKS
}

main "$@"
