"""Cloud Storage."""

from worker.adapters.gcs.store import GcsObjectStore, Retries, open_object_store

__all__ = ["GcsObjectStore", "Retries", "open_object_store"]
