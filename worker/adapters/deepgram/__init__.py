"""Deepgram's pre-recorded speech recognition."""

from worker.adapters.deepgram.breaker import CircuitBreaker
from worker.adapters.deepgram.recogniser import DeepgramRecogniser, Patience
from worker.adapters.deepgram.retries import Retries

__all__ = ["CircuitBreaker", "DeepgramRecogniser", "Patience", "Retries"]
