"""Counter, gauge and histogram types; every metric is declared once, in `worker.telemetry.register`.

They use OpenTelemetry's API, so they are no-ops until `worker.telemetry.export` installs a provider. Labels are
bounded: a value that is not declared is emitted as `other`, with a warning that fails tests.
"""

import warnings
from collections.abc import Iterable, Mapping
from itertools import product

from opentelemetry import metrics

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

    kind = "counter"

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

    kind = "gauge"

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

    kind = "histogram"

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
