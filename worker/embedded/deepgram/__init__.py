"""A stand-in for Deepgram's `POST /v1/listen`."""

from worker.embedded.deepgram.misbehaviour import Reply, Reset, SeededFaults, Slow
from worker.embedded.deepgram.server import EmbeddedDeepgram
from worker.embedded.deepgram.service import Receipt

__all__ = ["EmbeddedDeepgram", "Receipt", "Reply", "Reset", "SeededFaults", "Slow"]
