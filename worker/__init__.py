"""The transcription worker, and in worker.client what a publisher of jobs needs."""
