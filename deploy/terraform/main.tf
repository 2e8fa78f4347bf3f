# The same resources as deploy/provision.sh and deploy/deploy.sh make, from the same files: ../spec.yaml for names, settings
# and grants, ../worker-pool.yaml for the pool, ../lifecycle and ../bigquery. Variables: vars.sh writes them from ../env.

terraform {
  required_version = ">= 1.6"
  required_providers {
    google = {
      source  = "hashicorp/google"
      version = ">= 7.0, < 8.0"
    }
  }
}

variable "settings" {
  description = "Everything that deploy/env gives a value, as vars.sh writes it."
  type        = map(string)
}

variable "image" {
  description = "The worker's image, by digest."
  type        = string
  validation {
    condition     = can(regex("@sha256:[0-9a-f]{64}$", var.image))
    error_message = "The image must be named by its digest: ...@sha256:..."
  }
}

provider "google" {
  project = local.project
  region  = local.region
}

data "google_project" "this" {}

locals {
  spec    = yamldecode(file("${path.module}/../spec.yaml"))
  every   = local.spec.every_subscription
  project = var.settings["PROJECT_ID"]
  region  = var.settings["REGION"]
  suffix  = var.settings["SUFFIX"]
  labels  = { app = "klipstream-transcription", environment = var.settings["ENVIRONMENT"] }
  members = {
    worker   = "serviceAccount:${google_service_account.all["worker"].email}"
    scaler   = "serviceAccount:${google_service_account.all["scaler"].email}"
    pubsub   = "serviceAccount:service-${data.google_project.this.number}@gcp-sa-pubsub.iam.gserviceaccount.com"
    pipeline = var.settings["PIPELINE_MEMBER"]
  }
  fallback = var.settings["ENABLE_FALLBACK"] != "false"
  urgent   = var.settings["JOBS_SUBSCRIPTION_URGENT"]
  grants = {
    for grant in flatten([
      for one in local.spec.grants : [
        for role in one.roles : { to = one.to, kind = one.kind, of = one.of, role = "roles/${role}" }
      ] if local.members_known[one.to] && (one.kind != "secret" || local.fallback)
    ]) : "${grant.to} ${grant.kind} ${grant.of} ${grant.role}" => grant
  }
  members_known = { worker = true, scaler = true, pubsub = true, pipeline = var.settings["PIPELINE_MEMBER"] != "" }
  lifecycles = {
    for name, bucket in local.spec.buckets :
    name => try(jsondecode(file("${path.module}/../lifecycle/${bucket.lifecycle}.json")).rule, [])
  }
  pool = yamldecode(templatefile("${path.module}/../worker-pool.yaml", merge(var.settings, {
    IMAGE                       = var.image
    INSTANCES                   = var.settings["MIN_INSTANCES"]
    FALLBACK_BUDGET_USD_PER_DAY = replace(var.settings["FALLBACK_BUDGET_USD_PER_DAY"], "none", "")
  })))
  container = local.pool.spec.template.spec.containers[0]
  env       = [for entry in local.container.env : entry if local.fallback || entry.name != "DEEPGRAM_API_KEY"]
}

resource "google_service_account" "all" {
  for_each     = { for key, one in local.spec.accounts : key => one if one.of_environment }
  account_id   = "${each.value.name}${local.suffix}"
  display_name = "Transcription: ${each.key} (${var.settings["ENVIRONMENT"]})"
}

resource "google_pubsub_topic" "all" {
  for_each                   = local.spec.topics
  name                       = "${each.key}${local.suffix}"
  labels                     = local.labels
  message_retention_duration = each.value.retention
}

resource "google_pubsub_subscription" "all" {
  for_each                   = local.spec.subscriptions
  name                       = "${each.key}${local.suffix}"
  topic                      = google_pubsub_topic.all[each.value.topic].id
  labels                     = local.labels
  ack_deadline_seconds       = local.every.ack_seconds
  message_retention_duration = local.every.retention
  expiration_policy {
    ttl = ""
  }
  dynamic "retry_policy" {
    for_each = each.value.backs_off ? [local.every] : []
    content {
      minimum_backoff = retry_policy.value.first_backoff
      maximum_backoff = retry_policy.value.longest_backoff
    }
  }
  dynamic "dead_letter_policy" {
    for_each = each.value.forwards_to == null ? [] : [each.value.forwards_to]
    content {
      dead_letter_topic     = google_pubsub_topic.all[dead_letter_policy.value].id
      max_delivery_attempts = local.every.attempts
    }
  }
}

resource "google_pubsub_subscription" "urgent" {
  count                      = local.urgent == "" ? 0 : 1
  name                       = local.urgent
  topic                      = google_pubsub_subscription.all[local.spec.urgent.like].topic
  labels                     = local.labels
  filter                     = local.spec.urgent.filter
  ack_deadline_seconds       = local.every.ack_seconds
  message_retention_duration = local.every.retention
  expiration_policy {
    ttl = ""
  }
  retry_policy {
    minimum_backoff = local.every.first_backoff
    maximum_backoff = local.every.longest_backoff
  }
  dead_letter_policy {
    dead_letter_topic     = google_pubsub_topic.all[local.spec.subscriptions[local.spec.urgent.like].forwards_to].id
    max_delivery_attempts = local.every.attempts
  }
}

resource "google_pubsub_subscription_iam_member" "urgent" {
  for_each = {
    for key, one in local.grants : key => one
    if one.kind == "subscription" && one.of == local.spec.urgent.like && local.urgent != ""
  }
  subscription = google_pubsub_subscription.urgent[0].id
  role         = each.value.role
  member       = local.members[each.value.to]
}

resource "google_storage_bucket" "all" {
  for_each                    = local.spec.buckets
  name                        = "${local.project}-${each.key}${local.suffix}"
  location                    = local.region
  labels                      = local.labels
  uniform_bucket_level_access = true
  public_access_prevention    = "enforced"
  soft_delete_policy {
    retention_duration_seconds = each.value.soft_delete_days * 24 * 3600
  }
  versioning {
    enabled = each.value.versions
  }
  dynamic "lifecycle_rule" {
    for_each = local.lifecycles[each.key]
    content {
      action {
        type = lifecycle_rule.value.action.type
      }
      condition {
        age                        = try(lifecycle_rule.value.condition.age, null)
        days_since_noncurrent_time = try(lifecycle_rule.value.condition.daysSinceNoncurrentTime, null)
        matches_prefix             = try(lifecycle_rule.value.condition.matchesPrefix, null)
        with_state                 = try(lifecycle_rule.value.condition.isLive ? "LIVE" : "ARCHIVED", "ANY")
      }
    }
  }
}

resource "google_secret_manager_secret" "deepgram" {
  count     = local.fallback ? 1 : 0
  secret_id = "${local.spec.secret}${local.suffix}"
  labels    = local.labels
  replication {
    auto {}
  }
}

resource "google_bigquery_dataset" "costs" {
  dataset_id = "${local.spec.dataset}${replace(local.suffix, "-", "_")}"
  location   = local.region
  labels     = local.labels
}

resource "google_bigquery_table" "costs" {
  dataset_id = google_bigquery_dataset.costs.dataset_id
  table_id   = local.spec.table
  schema     = file("${path.module}/../bigquery/costs.json")
  clustering = ["outcome"]
  time_partitioning {
    type  = "DAY"
    field = "occurred_at"
  }
}

resource "google_bigquery_table_iam_member" "pubsub" {
  for_each   = toset(["roles/bigquery.dataEditor", "roles/bigquery.metadataViewer"])
  dataset_id = google_bigquery_dataset.costs.dataset_id
  table_id   = google_bigquery_table.costs.table_id
  role       = each.value
  member     = local.members.pubsub
}

resource "google_pubsub_subscription" "costs" {
  name                       = "${local.spec.costs.name}${local.suffix}"
  topic                      = google_pubsub_topic.all[local.spec.costs.topic].id
  labels                     = local.labels
  filter                     = local.spec.costs.filter
  ack_deadline_seconds       = local.every.ack_seconds
  message_retention_duration = local.every.retention
  expiration_policy {
    ttl = ""
  }
  retry_policy {
    minimum_backoff = local.every.first_backoff
    maximum_backoff = local.every.longest_backoff
  }
  bigquery_config {
    table               = "${local.project}.${google_bigquery_table.costs.dataset_id}.${google_bigquery_table.costs.table_id}"
    use_table_schema    = true
    drop_unknown_fields = true
  }
  depends_on = [google_bigquery_table_iam_member.pubsub]
}

resource "google_pubsub_topic_iam_member" "all" {
  for_each = { for key, one in local.grants : key => one if one.kind == "topic" }
  topic    = google_pubsub_topic.all[each.value.of].id
  role     = each.value.role
  member   = local.members[each.value.to]
}

resource "google_pubsub_subscription_iam_member" "all" {
  for_each     = { for key, one in local.grants : key => one if one.kind == "subscription" }
  subscription = google_pubsub_subscription.all[each.value.of].id
  role         = each.value.role
  member       = local.members[each.value.to]
}

resource "google_storage_bucket_iam_member" "all" {
  for_each = { for key, one in local.grants : key => one if one.kind == "bucket" }
  bucket   = google_storage_bucket.all[each.value.of].name
  role     = each.value.role
  member   = local.members[each.value.to]
}

resource "google_secret_manager_secret_iam_member" "all" {
  for_each  = { for key, one in local.grants : key => one if one.kind == "secret" }
  secret_id = google_secret_manager_secret.deepgram[0].id
  role      = each.value.role
  member    = local.members[each.value.to]
}

resource "google_project_iam_member" "all" {
  for_each = { for key, one in local.grants : key => one if one.kind == "project" }
  project  = local.project
  role     = each.value.role
  member   = local.members[each.value.to]
}

resource "google_service_account_iam_member" "all" {
  for_each           = { for key, one in local.grants : key => one if one.kind == "account" }
  service_account_id = google_service_account.all[each.value.of].name
  role               = each.value.role
  member             = local.members[each.value.to]
}

resource "google_cloud_run_v2_worker_pool" "worker" {
  name                = var.settings["POOL"]
  location            = local.region
  labels              = local.labels
  deletion_protection = true
  scaling {
    manual_instance_count = tonumber(var.settings["MIN_INSTANCES"])
  }
  template {
    service_account               = google_service_account.all["worker"].email
    gpu_zonal_redundancy_disabled = true
    labels                        = local.labels
    node_selector {
      accelerator = "nvidia-l4"
    }
    containers {
      name  = local.container.name
      image = local.container.image
      resources {
        limits = local.container.resources.limits
      }
      dynamic "env" {
        for_each = local.env
        content {
          name  = env.value.name
          value = try(env.value.value, null)
          dynamic "value_source" {
            for_each = try(env.value.value, null) == null ? [env.value.valueFrom.secretKeyRef] : []
            content {
              secret_key_ref {
                secret  = value_source.value.name
                version = value_source.value.key
              }
            }
          }
        }
      }
      startup_probe {
        period_seconds    = local.container.startupProbe.periodSeconds
        timeout_seconds   = local.container.startupProbe.timeoutSeconds
        failure_threshold = local.container.startupProbe.failureThreshold
        http_get {
          path = local.container.startupProbe.httpGet.path
          port = local.container.startupProbe.httpGet.port
        }
      }
      liveness_probe {
        period_seconds    = local.container.livenessProbe.periodSeconds
        timeout_seconds   = local.container.livenessProbe.timeoutSeconds
        failure_threshold = local.container.livenessProbe.failureThreshold
        http_get {
          path = local.container.livenessProbe.httpGet.path
          port = local.container.livenessProbe.httpGet.port
        }
      }
    }
  }
  # The number of instances is the autoscaler's business.
  lifecycle {
    ignore_changes = [scaling]
  }
  depends_on = [google_project_iam_member.all, google_secret_manager_secret_iam_member.all]
}
