"""The register: every metric of the worker, declared once. A test compares dashboards, alerts and `top` with it.

Names are Prometheus names. Counters count from the start of the worker; ratios and rates are computed by queries.
Metrics are no-ops until `worker.telemetry.export` installs a provider of OpenTelemetry. Labels are bounded: a value
that is not declared is emitted as `other`, with a warning that fails tests.
"""

import warnings
from collections.abc import Iterable, Mapping
from itertools import product

from opentelemetry import metrics

from schemas.codes import ErrorCode

OTHER = "other"
SECONDS_BUCKETS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 60, 120, 360, 720, 1800, 3600)

_METER = metrics.get_meter("klipstream")


class UndeclaredLabel(UserWarning):
    """A metric was emitted with a label that the register does not know."""


class Metric:
    """A declared metric. `name` is the Prometheus name, unit and `_total` included; `labels` maps names to values."""

    def __init__(self, name: str, help_text: str, *, unit: str = "", **labels: Iterable[str]) -> None:
        self.name, self.help, self.unit = name, help_text, unit
        self.labels: Mapping[str, frozenset[str]] = {label: frozenset(values) for label, values in labels.items()}

    def _checked(self, labels: Mapping[str, str]) -> dict[str, str]:
        if labels.keys() != self.labels.keys():
            warnings.warn(f"{self.name} has the labels {sorted(self.labels)}", UndeclaredLabel, stacklevel=3)
        return {label: self._known(label, labels.get(label, OTHER)) for label in self.labels}

    def _known(self, label: str, value: str) -> str:
        if value in self.labels[label]:
            return str(value)
        warnings.warn(f"{self.name}: {label}={value!r} is not declared", UndeclaredLabel, stacklevel=4)
        return OTHER


class Counter(Metric):
    """A sum that only grows."""

    def __init__(self, name: str, help_text: str, *, unit: str = "", **labels: Iterable[str]) -> None:
        super().__init__(name, help_text, unit=unit, **labels)
        self._instrument = _METER.create_counter(name, unit, help_text)

    def add(self, amount: float = 1, **labels: str) -> None:
        """Increase the counter; a negative amount is ignored."""
        self._instrument.add(max(amount, 0), self._checked(labels))

    def begin(self) -> None:
        """Initialise all label sets to 0, so that rate() sees the first increment."""
        for values in product(*self.labels.values()):
            self._instrument.add(0, dict(zip(self.labels, values, strict=True)))


class Gauge(Metric):
    """A current value; exported only once it has been set."""

    def __init__(self, name: str, help_text: str, *, unit: str = "", **labels: Iterable[str]) -> None:
        super().__init__(name, help_text, unit=unit, **labels)
        self._instrument = _METER.create_gauge(name, unit, help_text)

    def set(self, value: float, **labels: str) -> None:
        """Set the current value."""
        self._instrument.set(value, self._checked(labels))

    def set_one_of(self, label: str, current: str) -> None:
        """Set the gauge to 1 for the given value of a label, and to 0 for the label's other values."""
        for value in self.labels[label]:
            self.set(float(value == current), **{label: value})


class Histogram(Metric):
    """A distribution of values."""

    def __init__(
        self,
        name: str,
        help_text: str,
        *,
        unit: str = "",
        buckets: tuple[float, ...] = SECONDS_BUCKETS,
        **labels: Iterable[str],
    ) -> None:
        super().__init__(name, help_text, unit=unit, **labels)
        self._instrument = _METER.create_histogram(
            name, unit, help_text, explicit_bucket_boundaries_advisory=[float(bound) for bound in buckets]
        )

    def record(self, value: float, **labels: str) -> None:
        """Record one value."""
        self._instrument.record(value, self._checked(labels))


CODES = frozenset(code.value for code in ErrorCode)
ENGINES = ("parakeet", "deepgram")
GATES = ("no_text", "gap", "word_rate", "repetition", "low_confidence")
GPUS = tuple(str(index) for index in range(16))
STAGES = (
    "claim",
    "download",
    "probe",
    "transcribe",
    "decode",
    "plan",
    "chunk",
    "parakeet",
    "parakeet_other_cuts",
    "parakeet_gaps",
    "deepgram",
    "deepgram_gaps",
    "checkpoint",
    "merge",
    "render",
    "upload",
    "conclude",
    "publish",
)
ENGINE_STATES = ("loading", "ready", "replacing", "failed", "none")
FUSE_STATES = ("closed", "testing", "open")
THROTTLING = ("thermal", "power", "hardware")

# jobs
JOBS = Counter("klipstream_jobs_total", "Jobs that ended", outcome=("completed", "failed"))
JOB_SECONDS = Histogram("klipstream_job_seconds", "From the start of a completed job to its artefacts", unit="s")
QUEUE_SECONDS = Histogram("klipstream_queue_seconds", "From a job's publication to its start", unit="s")
JOB_AUDIO_SECONDS = Counter("klipstream_job_audio_seconds_total", "Audio of completed jobs", unit="s")
SPEED_RATIO = Histogram(
    "klipstream_speed_ratio",
    "Audio seconds per second of a completed job",
    buckets=(1, 2, 5, 10, 20, 40, 60, 80, 120, 200, 400, 800, 1600),
)
STAGE_SECONDS = Histogram(
    "klipstream_stage_seconds", "What the stages of jobs take; some overlap", unit="s", stage=STAGES
)
DEAD_LETTERS = Counter("klipstream_dead_letters_total", "Messages that were given up on: the failed jobs", code=CODES)
COST_USD = Counter(
    "klipstream_cost_usd_total", "What was spent: on jobs, by engine, and on idle time", engine=(*ENGINES, "idle")
)
BASELINE_USD = Counter("klipstream_baseline_usd_total", "What Deepgram alone would have cost for the completed jobs")

# chunks
CHUNKS = Counter(
    "klipstream_chunks_total", "Chunks of all jobs; the engine of a failed one is none", engine=(*ENGINES, "none"),
    outcome=("heard", "resumed", "failed"),
)  # fmt: skip
FALLBACKS = Counter("klipstream_fallbacks_total", "Chunks that Deepgram did because Parakeet could not", reason=CODES)
GAPS = Counter(
    "klipstream_gaps_total", "Holes with speech in Parakeet's words; second passes mend them",
    outcome=("found", "mended", "left"),
)  # fmt: skip
GATE_FAILURES = Counter("klipstream_gate_failures_total", "Chunks whose words looked wrong", gate=GATES)

# messages
DELIVERIES = Counter(
    "klipstream_deliveries_total",
    "Deliveries by how they ended; retry: an attempt was counted, deferred: none was",
    outcome=("ack", "retry", "deferred", "dead_letter", "lost", "stopped"),
)
LEASES_LOST = Counter("klipstream_leases_lost_total", "Deliveries whose lease was lost while their job ran")
JOBS_IN_FLIGHT = Gauge("klipstream_jobs_in_flight", "Job slots in use")
JOBS_PARKED = Gauge(
    "klipstream_jobs_parked", "Deliveries held while another worker does their job, or Deepgram is down"
)
PULL_FAILURES = Gauge("klipstream_pull_failures_in_a_row", "Pulls that failed since the last one that did not")
URGENT_PULL_FAILURES = Gauge("klipstream_urgent_pull_failures_in_a_row", "The same of the urgent subscription's pulls")
URGENT_BACKLOG = Gauge("klipstream_urgent_backlog", "Unacknowledged urgent messages, some minutes ago")
URGENT_OLDEST_SECONDS = Gauge("klipstream_urgent_oldest_message_seconds", "Age of the oldest of them", unit="s")
INTAKE_STOPPED = Gauge("klipstream_intake_stopped", "1 while no message is taken in, fuse or no engine")
FUSE_STATE = Gauge("klipstream_fuse_state", "1 for the state that the fuse is in", state=FUSE_STATES)
RETRIES = Counter(
    "klipstream_retries_total", "Calls to Google that failed and were repeated", service=("gcs", "pubsub")
)
READY = Gauge("klipstream_ready", "1 while the worker can do jobs")

# engines
ENGINE_BUSY_SECONDS = Counter(
    "klipstream_engine_busy_seconds_total", "Engine time that jobs were charged for", unit="s"
)
ENGINE_IDLE_SECONDS = Counter("klipstream_engine_idle_seconds_total", "The instance's time beside that", unit="s")
ENGINE_RESTARTS = Counter("klipstream_engine_restarts_total", "Inference processes that were replaced")
ENGINE_STATE = Gauge("klipstream_engine_state", "1 for the state that the inference process is in", state=ENGINE_STATES)
ENGINE_MEMORY_BYTES = Gauge("klipstream_engine_memory_bytes", "The most GPU memory that it reserved", unit="By")
DEEPGRAM_REQUESTS = Counter(
    "klipstream_deepgram_requests_total", "Requests that Deepgram may bill", outcome=("answered", "wasted")
)
DEEPGRAM_RETRIES = Counter("klipstream_deepgram_retries_total", "Tries after one that failed")
DEEPGRAM_DOWN = Gauge("klipstream_deepgram_down", "1 from when Deepgram served no request to the next answer")
BUDGET_RESERVED_USD = Counter("klipstream_budget_reserved_usd_total", "Taken from the day's Deepgram budget")
BUDGET_SPENT = Gauge("klipstream_budget_spent", "1 while the day's Deepgram budget refuses")

# the GPU, where there is one
GPU_UTILISATION = Gauge("klipstream_gpu_utilisation_ratio", "Share of time in which a kernel ran", unit="1", gpu=GPUS)
GPU_MEMORY_USED_BYTES = Gauge("klipstream_gpu_memory_used_bytes", "In use, by whomever", unit="By", gpu=GPUS)
GPU_MEMORY_TOTAL_BYTES = Gauge("klipstream_gpu_memory_total_bytes", "Built in", unit="By", gpu=GPUS)
GPU_TEMPERATURE_CELSIUS = Gauge("klipstream_gpu_temperature_celsius", "Of the die", unit="Cel", gpu=GPUS)
GPU_POWER_WATTS = Gauge("klipstream_gpu_power_watts", "What it draws", unit="W", gpu=GPUS)
GPU_THROTTLED = Gauge("klipstream_gpu_throttled", "1 while its clocks are held down", gpu=GPUS, reason=THROTTLING)
GPU_ECC_ERRORS = Gauge("klipstream_gpu_ecc_errors", "Uncorrected memory errors since it was reset", gpu=GPUS)

REGISTER: tuple[Metric, ...] = tuple(value for value in list(globals().values()) if isinstance(value, Metric))
