"""Results of the comparison: plain data and arithmetic, without torch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from worker.adapters.parakeet.protocol import Precision
from worker.ports import Pcm

RANDOM_WEIGHTS = "random-0.6b"
"""In place of a model's name: the architecture of parakeet-tdt-0.6b-v2 with random weights."""


@dataclass(frozen=True, kw_only=True)
class Material:
    """The same speech three times over."""

    seconds: float
    windows: Sequence[Pcm]
    """As our planner cuts it."""
    chunk_files: Sequence[Path]
    """In equal parts, as files."""


@dataclass(frozen=True, kw_only=True)
class ComparisonPlan:
    """Plan of the measurements. Batch sizes are numbers of windows."""

    weights: str
    device: str
    batch_size: int | None
    """Most windows in a batch of ours; None: as suits the device."""
    threads: int
    """Threads of ours; NeMo uses torch's default."""
    nemo_batch_sizes: Sequence[int]
    memory_limit_gib: float
    gpu_precision: Precision
    gpu_graphs: bool
    repeats: int


@dataclass(frozen=True, kw_only=True)
class ComparedWay:
    """One way to transcribe the material."""

    seconds: tuple[float, ...]
    """Seconds of each repeat."""
    peak_bytes: int
    """The most memory at work, above that of the loaded models: on a GPU its own, else the process's."""

    @property
    def median_seconds(self) -> float:
        """Median of the repeats."""
        return median(self.seconds)


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Agreement of two lists of tokens."""

    windows: int
    equal_windows: int
    tokens: int
    wrong_tokens: int
    """Insertions, deletions and substitutions that lead from one to the other."""

    @property
    def wrong_share(self) -> float:
        """0 where every token is the same."""
        return self.wrong_tokens / self.tokens if self.tokens else 0.0


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Everything about the inference of one material."""

    device_name: str
    uses_gpu: bool
    precision: str
    """Precision of ours and of NeMo on windows; NeMo on chunks uses float32, its default."""
    nemo_threads: int
    ours: ComparedWay
    batch_size: int
    """Windows of 30 s in a full batch of ours."""
    chunks: ComparedWay
    """NeMo as it comes: whole chunks, default batch, timestamps on."""
    windows: ComparedWay
    """NeMo on our windows, at its best batch size."""
    best_batch_size: int
    sweep: Mapping[int, float]
    """NeMo's seconds by batch size."""
    alone: Agreement
    """Ours against NeMo with one window at a time."""
    batched: Agreement
    """Ours against NeMo at its best batch size."""
    stages: Mapping[str, float]
    """Seconds of ours by stage, in the median repeat."""
    encoder_flops: float
    """Operations for all windows at their own lengths, without padding."""
    ceiling_flops_per_second: float
    """The fastest matrix product of the same precision on the same threads."""

    @property
    def share_of_ceiling(self) -> float:
        """The encoder's useful arithmetic over what the device could have done in its time."""
        return self.encoder_flops / self.stages["encoder"] / self.ceiling_flops_per_second


def agreement(ours: Sequence[Sequence[str]], theirs: Sequence[Sequence[str]]) -> Agreement:
    """Compare window by window."""
    pairs = list(zip(ours, theirs, strict=True))
    return Agreement(
        windows=len(pairs),
        equal_windows=sum(list(mine) == list(other) for mine, other in pairs),
        tokens=sum(len(other) for _, other in pairs),
        wrong_tokens=sum(edits(mine, other) for mine, other in pairs),
    )


def edits(first: Sequence[str], second: Sequence[str]) -> int:
    """Return the minimum number of insertions, deletions and substitutions between two sequences."""
    row = list(range(len(second) + 1))
    for number, one in enumerate(first, 1):
        diagonal, row[0] = row[0], number
        for place, other in enumerate(second, 1):
            cheapest = min(diagonal + (one != other), row[place] + 1, row[place - 1] + 1)
            diagonal, row[place] = row[place], cheapest
    return row[-1]
