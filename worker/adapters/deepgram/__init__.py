"""Deepgram's pre-recorded speech recognition."""

from worker.adapters.deepgram.breaker import CircuitBreaker
from worker.adapters.deepgram.recogniser import DeepgramRecogniser, RequestTimeouts, RetryPolicy

__all__ = ["CircuitBreaker", "DeepgramRecogniser", "RequestTimeouts", "RetryPolicy"]
