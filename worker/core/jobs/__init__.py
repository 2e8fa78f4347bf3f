"""One job's way from a decoded message to durable artefacts and events."""
