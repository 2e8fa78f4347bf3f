"""Log events, metrics and traces. Each is set up once, at the start of the process."""

from worker.telemetry.logs import LogFormat, LogLevel, configure_logging

__all__ = ["LogFormat", "LogLevel", "configure_logging"]
