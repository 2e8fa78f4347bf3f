"""The data of the page, from health documents and the state bucket; `worker.adapters.web` renders it."""
