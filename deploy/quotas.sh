# shellcheck shell=bash
# What the project may run: three quotas of Cloud Run bind, memory usually first. Sourced.

QUOTA_CHECK=${QUOTA_CHECK:-1}
GPU_QUOTA=NvidiaL4GpuAllocNoZonalRedundancyPerProjectRegion
CPU_QUOTA=CpuAllocPerProjectRegion    # in thousandths of a vCPU
MEMORY_QUOTA=MemAllocPerProjectRegion # in bytes
L4_REGIONS='us-central1 us-east4 europe-west1 europe-west4 asia-southeast1 asia-south1'

# read_quotas: sets QUOTA_INSTANCES to how many instances of this shape fit, empty where no quota could be read, and
# QUOTA_REASON to the quota that says so.
read_quotas() {
    local answer name granted fit
    local -A most=()
    QUOTA_INSTANCES='' QUOTA_REASON=''
    local -a ask=(gcloud beta quotas info list --service=run.googleapis.com --project="$PROJECT_ID"
        --flatten='dimensionsInfos[]'
        --filter="dimensionsInfos.applicableLocations:$REGION AND (quotaId=$GPU_QUOTA OR quotaId=$CPU_QUOTA OR quotaId=$MEMORY_QUOTA)"
        --format='csv[no-heading](quotaId,dimensionsInfos.details.value)')
    if [[ -n $DRY_RUN ]]; then
        run "${ask[@]}"
        return
    fi
    answer=$(answer "${ask[@]}") || die "cannot read the quotas of Cloud Run: roles/cloudquotas.viewer is needed, or --no-quota-check"
    # A quota may come in several lines, such as one for every kind of dimension: the largest counts.
    while IFS=, read -r name granted; do
        [[ $granted =~ ^-?[0-9]+$ ]] || continue
        ((granted != -1)) || granted=9223372036854775807 # no limit
        [[ -n ${most[$name]:-} ]] && ((most[$name] >= granted)) || most[$name]=$granted
    done <<<"$answer"
    for name in "$GPU_QUOTA" "$CPU_QUOTA" "$MEMORY_QUOTA"; do
        [[ -n ${most[$name]:-} ]] || continue
        case $name in
        "$GPU_QUOTA") fit=${most[$name]} ;;
        "$CPU_QUOTA") fit=$((most[$name] / (VCPUS * 1000))) ;;
        *) fit=$((most[$name] / (MEMORY_GIB * 1073741824))) ;;
        esac
        [[ -n $QUOTA_INSTANCES ]] && ((QUOTA_INSTANCES <= fit)) || QUOTA_INSTANCES=$fit QUOTA_REASON="$name=${most[$name]}"
    done
}

# require_quota NEEDED [NEW]: ends the script where the quotas do not let so many instances run. Of a NEW pool the GPU
# quota may read 0 although Google grants a few with the first deployment in a region: that is left to the server.
require_quota() {
    local needed=$1 new=${2:-}
    [[ $QUOTA_CHECK == 1 ]] || { echo "# quotas: not checked" && return; }
    [[ " $L4_REGIONS " == *" $REGION "* ]] ||
        die "Cloud Run has no L4 in $REGION (it has in: $L4_REGIONS); set REGION, or --no-quota-check if that is old"
    read_quotas
    [[ -z $DRY_RUN ]] || return 0
    if [[ -z $QUOTA_INSTANCES || ($QUOTA_INSTANCES == 0 && -n $new && $QUOTA_REASON == "$GPU_QUOTA"*) ]]; then
        echo "# quotas in $REGION: ${QUOTA_REASON:-none is told}; with the first deployment Google may grant 3 L4s"
        return
    fi
    ((QUOTA_INSTANCES >= needed)) ||
        die "the quotas in $REGION let $QUOTA_INSTANCES instances of $VCPUS vCPU and $MEMORY_GIB GiB run ($QUOTA_REASON)," \
            "$needed are needed. docs/operate/runbook.md, \"Quotas\"; if you know better: --no-quota-check"
    echo "# quotas in $REGION: $QUOTA_INSTANCES instances fit ($QUOTA_REASON)"
}
