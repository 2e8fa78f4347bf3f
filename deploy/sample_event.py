"""Print how a job ended, in one line; nothing before. Stdin: `gcloud pubsub subscriptions pull --format=json`."""

from __future__ import annotations  # an operator's Python may be 3.9

import base64
import json
import sys
from typing import Any


def ending(events: list[dict[str, Any]]) -> str | None:
    """Return the line of the completed or failed event, if one is there."""
    for event in events:
        metadata = event.get("transcription_metadata") or {}
        if event["event_type"] == "transcription.completed":
            return (
                f"completed: {metadata['words_count']} words by {metadata['method_used']} on "
                f"{metadata['device_used']}, "
                f"{metadata['processing_speed_ratio']:.0f} times real time, ${metadata['cost_estimate_usd']:.4f}, "
                f"worker {metadata['worker']}"
            )
        if event["event_type"] == "transcription.failed":
            error = event["error"]
            return f"failed: {error['error_code']}: {error['error_message']}. {error['suggested_action']}"
    return None


if __name__ == "__main__":
    messages = json.loads(sys.stdin.read() or "[]")
    if found := ending([json.loads(base64.b64decode(one["message"]["data"])) for one in messages]):
        print(found)
