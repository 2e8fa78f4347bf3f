#!/usr/bin/env bash
# Makes everything the worker needs in Google Cloud, or brings it to this specification. Run it as often as you like.
#
#   deploy/provision.sh ENVIRONMENT [--dry-run] [--only PART[,PART...]]
#
#   ENVIRONMENT  staging or production: deploy/env/
#   --dry-run    print every command, run none
#   --only       some of the parts: apis accounts pubsub buckets lifecycle secret costs access oncall registry budget audit
#                (audit alone is done only when it is named: it logs every access, at $0.50 a GiB, for the whole project)
#
# It takes an account that may administer the project: roles/owner, or the administrator roles of the services it names.
. "$(dirname "$0")/lib.sh"

LABELS=app=klipstream-transcription
PARTS=(apis accounts pubsub buckets lifecycle secret costs access oncall registry budget)

main() {
    local part
    arguments_of 1 --dry-run --only= -- "$@"
    [[ -z ${GIVEN[only]:-} ]] || IFS=, read -r -a PARTS <<<"${GIVEN[only]}"
    load_environment "${WORDS[0]}"
    require_gcloud
    LABELS+=",environment=$ENVIRONMENT"
    for part in "${PARTS[@]}"; do
        declare -F "provision_$part" >/dev/null || die "there is no part $part"
        echo
        echo "# $part"
        "provision_$part"
    done
}

provision_apis() {
    run gcloud services enable artifactregistry.googleapis.com bigquery.googleapis.com billingbudgets.googleapis.com \
        cloudbilling.googleapis.com cloudbuild.googleapis.com cloudquotas.googleapis.com \
        cloudresourcemanager.googleapis.com cloudscheduler.googleapis.com cloudtrace.googleapis.com iam.googleapis.com \
        logging.googleapis.com monitoring.googleapis.com ondemandscanning.googleapis.com parametermanager.googleapis.com \
        pubsub.googleapis.com run.googleapis.com secretmanager.googleapis.com storage.googleapis.com \
        telemetry.googleapis.com
    # The service's own account exists only once asked for; two grants below name it.
    run gcloud beta services identity create --service=pubsub.googleapis.com
}

provision_accounts() {
    service_account "$WORKER_ACCOUNT" "Transcription worker ($ENVIRONMENT)"
    service_account "$BUILD_ACCOUNT" "Builds and deploys the transcription worker"
    service_account "$SCALER_ACCOUNT" "Scales the transcription worker ($ENVIRONMENT)"
}

service_account() {
    found gcloud iam service-accounts describe "$(account "$1")" ||
        run gcloud iam service-accounts create "$1" --display-name="$2"
}

# A topic without a subscription loses messages, so each gets one here. Acknowledgement deadline: a delivery that is lost
# with a dying worker comes back after it, and workers extend it all the time. 100 attempts are the backstop only: the
# worker counts failures itself. Dead letters can be had back for 31 days, the longest there is, by `seek`.
provision_pubsub() {
    topic "$DEAD_LETTER_TOPIC" --message-retention-duration=31d
    topic "$JOBS_TOPIC"
    topic "$COMPLETION_TOPIC"
    subscription "$DEAD_LETTER_SUBSCRIPTION" "$DEAD_LETTER_TOPIC"
    subscription "$JOBS_SUBSCRIPTION" "$JOBS_TOPIC" \
        --dead-letter-topic="$DEAD_LETTER_TOPIC" --max-delivery-attempts=100
    [[ -z $JOBS_SUBSCRIPTION_URGENT ]] || urgent_subscription
    subscription "$COMPLETION_SUBSCRIPTION" "$COMPLETION_TOPIC"
}

# The plain subscription has no filter and gets urgent jobs too. A filter cannot be changed after creation.
urgent_subscription() {
    local filter='attributes.priority = "urgent"' has
    if found gcloud pubsub subscriptions describe "$JOBS_SUBSCRIPTION_URGENT"; then
        has=$(answer gcloud pubsub subscriptions describe "$JOBS_SUBSCRIPTION_URGENT" --format='value(filter)')
        [[ $has == "$filter" ]] ||
            die "$JOBS_SUBSCRIPTION_URGENT has the filter '$has', not '$filter', and a filter cannot be changed:" \
                "gcloud pubsub subscriptions delete $JOBS_SUBSCRIPTION_URGENT; its jobs are in $JOBS_SUBSCRIPTION too"
        filter=
    fi
    subscription "$JOBS_SUBSCRIPTION_URGENT" "$JOBS_TOPIC" ${filter:+--message-filter="$filter"} \
        --dead-letter-topic="$DEAD_LETTER_TOPIC" --max-delivery-attempts=100
}

# topic NAME FLAG..., subscription NAME TOPIC FLAG...: the flags are those of create and update alike.
topic() {
    local name=$1
    shift
    if found gcloud pubsub topics describe "$name"; then
        run gcloud pubsub topics update "$name" "$@" --update-labels="$LABELS"
    else
        run gcloud pubsub topics create "$name" "$@" --labels="$LABELS"
    fi
}

subscription() {
    local name=$1 topic=$2
    shift 2
    local flags=(--ack-deadline=60 --message-retention-duration=7d "$@")
    local -a retries=(--min-retry-delay=10s --max-retry-delay=600s)
    # Dead letters are only looked at: what a console or a worker gives back must be there for the next at once.
    [[ $name != "$DEAD_LETTER_SUBSCRIPTION" ]] || retries=()
    if found gcloud pubsub subscriptions describe "$name"; then
        run gcloud pubsub subscriptions update "$name" "${flags[@]}" "${retries[@]:---clear-retry-policy}" \
            --update-labels="$LABELS"
    else
        run gcloud pubsub subscriptions create "$name" --topic="$topic" "${flags[@]}" "${retries[@]}" \
            --expiration-period=never --labels="$LABELS"
    fi
}

# Audio and transcripts come back for a week after a slip (soft delete). Of state, versions do that: soft delete cannot be
# limited to the results, and a claim is written every ten seconds. The lifecycle drops old versions.
# The last bucket is where `gcloud builds submit` puts the source; made here, so that the build account can be let in.
provision_buckets() {
    bucket "$AUDIO_BUCKET" --soft-delete-duration=7d
    bucket "$OUTPUT_BUCKET" --soft-delete-duration=7d
    bucket "$STATE_BUCKET" --soft-delete-duration=0
    bucket "$(source_bucket)"
}

source_bucket() {
    echo "${PROJECT_ID}_cloudbuild"
}

bucket() {
    local name=$1
    shift
    found gcloud storage buckets describe "gs://$name" ||
        run gcloud storage buckets create "gs://$name" --location="$REGION" --default-storage-class=STANDARD \
            --uniform-bucket-level-access --public-access-prevention "$@" ||
        die "gs://$name cannot be made. Bucket names are the whole world's: where this one is taken, set AUDIO_BUCKET," \
            "OUTPUT_BUCKET or STATE_BUCKET in deploy/env/$ENVIRONMENT.env"
}

# Checkpoints of jobs that nobody finished go after 7 days. Claims, results and the budget's ledgers stay 90: a replay
# finds the earlier run, a late duplicate its answer, and costs can be traced.
provision_lifecycle() {
    run gcloud storage buckets update "gs://$STATE_BUCKET" --lifecycle-file="$DEPLOY/lifecycle/state.json" \
        --versioning --update-labels="$LABELS"
    run gcloud storage buckets update "gs://$AUDIO_BUCKET" --lifecycle-file="$DEPLOY/lifecycle/audio.json" \
        --update-labels="$LABELS"
    run gcloud storage buckets update "gs://$OUTPUT_BUCKET" --update-labels="$LABELS"
}

provision_secret() {
    if [[ $ENABLE_FALLBACK == false ]]; then
        echo "# ENABLE_FALLBACK is false: no Deepgram key is needed"
        return
    fi
    found gcloud secrets describe "$DEEPGRAM_SECRET" ||
        run gcloud secrets create "$DEEPGRAM_SECRET" --replication-policy=automatic --labels="$LABELS"
    echo "# then once, and at every rotation: gcloud secrets versions add $DEEPGRAM_SECRET --data-file=-"
}

# Cost events go from the completion topic into a table by themselves; the filter cannot be changed later.
provision_costs() {
    local table="$PROJECT_ID:$COST_DATASET.$COST_TABLE" agent
    agent=$(pubsub_agent)
    found bq show "$PROJECT_ID:$COST_DATASET" ||
        run bq --location="$REGION" mk --dataset --description="What transcription costs" "$PROJECT_ID:$COST_DATASET"
    if found bq show "$table"; then
        run bq update "$table" "$DEPLOY/bigquery/costs.json"
    else
        run bq mk --table --time_partitioning_field=occurred_at --time_partitioning_type=DAY \
            --clustering_fields=outcome "$table" "$DEPLOY/bigquery/costs.json"
    fi
    run bq add-iam-policy-binding --member="$agent" --role=roles/bigquery.dataEditor --table=true "$table"
    run bq add-iam-policy-binding --member="$agent" --role=roles/bigquery.metadataViewer --table=true "$table"
    # Pub/Sub looks for its grants on the table at once, and they take a while to be known.
    found gcloud pubsub subscriptions describe "$COST_SUBSCRIPTION" ||
        run_patiently gcloud pubsub subscriptions create "$COST_SUBSCRIPTION" --topic="$COMPLETION_TOPIC" \
            --message-filter='attributes.event_type = "transcription.cost"' \
            --bigquery-table="$table" --use-table-schema --drop-unknown-fields \
            --ack-deadline=60 --min-retry-delay=10s --max-retry-delay=600s --expiration-period=never \
            --message-retention-duration=7d --labels="$LABELS"
}

pubsub_agent() {
    local number
    number=$(value PROJECT_NUMBER gcloud projects describe "$PROJECT_ID" --format='value(projectNumber)')
    echo "serviceAccount:service-$number@gcp-sa-pubsub.iam.gserviceaccount.com"
}

# Grants are on the one topic, bucket or secret wherever the service has such grants. pubsub.viewer is what lets the
# worker read its subscription's settings at start (pubsub.subscriptions.get) and look for its topics.
provision_access() {
    local worker builder scaler agent name
    worker="serviceAccount:$(account "$WORKER_ACCOUNT")"
    builder="serviceAccount:$(account "$BUILD_ACCOUNT")"
    scaler="serviceAccount:$(account "$SCALER_ACCOUNT")"
    agent=$(pubsub_agent)

    # Pub/Sub itself forwards what was delivered 100 times.
    grant "pubsub topics" "$DEAD_LETTER_TOPIC" "$agent" roles/pubsub.publisher
    for name in "$JOBS_SUBSCRIPTION" ${JOBS_SUBSCRIPTION_URGENT:+"$JOBS_SUBSCRIPTION_URGENT"}; do
        grant "pubsub subscriptions" "$name" "$agent" roles/pubsub.subscriber
        grant "pubsub subscriptions" "$name" "$worker" roles/pubsub.subscriber roles/pubsub.viewer
    done
    grant "pubsub topics" "$COMPLETION_TOPIC" "$worker" roles/pubsub.publisher roles/pubsub.viewer
    grant "pubsub topics" "$DEAD_LETTER_TOPIC" "$worker" roles/pubsub.publisher roles/pubsub.viewer
    # Workers look after messages that Pub/Sub forwarded without a verdict: each still owes its failed event.
    grant "pubsub subscriptions" "$DEAD_LETTER_SUBSCRIPTION" "$worker" roles/pubsub.subscriber
    grant "storage buckets" "gs://$AUDIO_BUCKET" "$worker" roles/storage.objectViewer
    grant "storage buckets" "gs://$OUTPUT_BUCKET" "$worker" roles/storage.objectUser
    grant "storage buckets" "gs://$STATE_BUCKET" "$worker" roles/storage.objectUser
    [[ $ENABLE_FALLBACK == false ]] || grant secrets "$DEEPGRAM_SECRET" "$worker" roles/secretmanager.secretAccessor
    # Without serviceUsageConsumer telemetry may be refused without a word, and most alerts are blind.
    grant projects "$PROJECT_ID" "$worker" roles/telemetry.writer roles/monitoring.viewer \
        roles/serviceusage.serviceUsageConsumer

    grant projects "$PROJECT_ID" "$builder" roles/logging.logWriter roles/logging.viewer roles/run.developer \
        roles/artifactregistry.writer roles/cloudquotas.viewer roles/ondemandscanning.admin
    grant "storage buckets" "gs://$(source_bucket)" "$builder" roles/storage.objectUser
    grant "iam service-accounts" "$(account "$WORKER_ACCOUNT")" "$builder" roles/iam.serviceAccountUser

    grant projects "$PROJECT_ID" "$scaler" roles/monitoring.viewer roles/parametermanager.parameterViewer
    grant "iam service-accounts" "$(account "$WORKER_ACCOUNT")" "$scaler" roles/iam.serviceAccountUser

    grant_pipeline
    grant_operators
}

grant_pipeline() {
    [[ -n $PIPELINE_MEMBER ]] || return 0
    grant "pubsub topics" "$JOBS_TOPIC" "$PIPELINE_MEMBER" roles/pubsub.publisher
    grant "pubsub subscriptions" "$COMPLETION_SUBSCRIPTION" "$PIPELINE_MEMBER" roles/pubsub.subscriber
    grant "storage buckets" "gs://$AUDIO_BUCKET" "$PIPELINE_MEMBER" roles/storage.objectUser # replaces what it uploaded
    grant "storage buckets" "gs://$OUTPUT_BUCKET" "$PIPELINE_MEMBER" roles/storage.objectViewer
}

grant_operators() {
    [[ -n $OPERATORS_MEMBER ]] || return 0
    grant "pubsub subscriptions" "$DEAD_LETTER_SUBSCRIPTION" "$OPERATORS_MEMBER" \
        roles/pubsub.subscriber roles/pubsub.viewer
    grant "pubsub topics" "$JOBS_TOPIC" "$OPERATORS_MEMBER" roles/pubsub.publisher
    grant "storage buckets" "gs://$STATE_BUCKET" "$OPERATORS_MEMBER" roles/storage.objectUser
}

# What the runbook asks of the people on call: look, deploy, roll back, rotate the key, read quotas and costs.
provision_oncall() {
    [[ -n $OPERATORS_MEMBER ]] || { echo "# OPERATORS_MEMBER is not set: grants by hand" && return; }
    grant projects "$PROJECT_ID" "$OPERATORS_MEMBER" roles/logging.viewer roles/monitoring.viewer roles/run.developer \
        roles/artifactregistry.writer roles/cloudquotas.viewer roles/bigquery.jobUser
    grant "iam service-accounts" "$(account "$WORKER_ACCOUNT")" "$OPERATORS_MEMBER" roles/iam.serviceAccountUser
    [[ $ENABLE_FALLBACK == false ]] ||
        grant secrets "$DEEPGRAM_SECRET" "$OPERATORS_MEMBER" roles/secretmanager.secretVersionManager roles/secretmanager.viewer
    run bq add-iam-policy-binding --member="$OPERATORS_MEMBER" --role=roles/bigquery.dataViewer --table=true \
        "$PROJECT_ID:$COST_DATASET.$COST_TABLE"
}

# grant "GROUP OF COMMANDS" RESOURCE MEMBER ROLE...
grant() {
    local group resource=$2 member=$3 role
    read -r -a group <<<"$1"
    shift 3
    # Without a word on conditions gcloud asks for one where the project's policy has any.
    local -a condition=()
    [[ ${group[0]} != projects ]] || condition=(--condition=None)
    for role; do
        # An account that was made a moment ago may not be known yet.
        run_patiently gcloud "${group[@]}" add-iam-policy-binding "$resource" --member="$member" --role="$role" \
            "${condition[@]}" --format=none
    done
}

provision_registry() {
    found gcloud artifacts repositories describe "$REPOSITORY" --location="$REGION" ||
        run gcloud artifacts repositories create "$REPOSITORY" --location="$REGION" --repository-format=docker \
            --description="Images of the transcription worker"
    run gcloud artifacts repositories set-cleanup-policies "$REPOSITORY" --location="$REGION" \
        --policy="$DEPLOY/registry-cleanup.json" --no-dry-run
}

# Who read or wrote which audio, transcript, message or secret, except the worker itself, whose pulls and claims would be
# most of it. The policy is read, completed and written back.
provision_audit() {
    local policy
    policy=$RENDERED/policy.json
    own_folder
    local -a get=(gcloud projects get-iam-policy "$PROJECT_ID" --format=json)
    local -a complete=(python3 -I "$DEPLOY/audit_policy.py" "serviceAccount:$(account "$WORKER_ACCOUNT")")
    echo "$(quoted "${get[@]}") | $(quoted "${complete[@]}") >$(quoted "$policy")"
    [[ -n $DRY_RUN ]] || answer "${get[@]}" | "${complete[@]}" >"$policy"
    run gcloud projects set-iam-policy "$PROJECT_ID" "$policy" --format=none
}

provision_budget() {
    local name="Transcription ($ENVIRONMENT)" standing=''
    if [[ -z $BILLING_ACCOUNT ]]; then
        echo "# BILLING_ACCOUNT is not set: no budget"
        return
    fi
    [[ -n $DRY_RUN ]] || standing=$(standing_as "$name" gcloud billing budgets list --billing-account="$BILLING_ACCOUNT")
    [[ -n $standing ]] || run gcloud billing budgets create --billing-account="$BILLING_ACCOUNT" --display-name="$name" \
            --budget-amount="${BUDGET_USD_PER_MONTH}USD" --filter-projects="projects/$PROJECT_ID" \
            --filter-labels="environment=$ENVIRONMENT" --threshold-rule=percent=0.5 --threshold-rule=percent=0.9 \
            --threshold-rule=percent=1.0,basis=forecasted-spend
}

main "$@"
