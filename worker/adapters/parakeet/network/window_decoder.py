"""From encoded windows to tokens: rows for the decoder, and its steps."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate

import torch
from torch import Tensor

from worker.adapters.parakeet.network.boosting import Boost, Keyterms, WindowTerms
from worker.adapters.parakeet.network.cuda import Capture, Report
from worker.adapters.parakeet.network.layout import SLOT_FRAMES
from worker.adapters.parakeet.network.tdt_decoder import DecoderRows, Steps, TdtDecoder
from worker.adapters.parakeet.network.words import Token

LEAST_ROWS = 16
"""Rows of a decoding step. With fewer MKL may multiply in another order (up to 3 on one Xeon, up to 15 on a newer one),
so a window's last bits would depend on whether others are decoded with it; a test looks for the number from which they
do not."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EncodedWindows:
    """Some windows as the decoder takes them: each window's first frame and number of frames in `frames`."""

    frames: Tensor
    """Projected encoder frames, (frames, joint size)."""
    starts: tuple[int, ...]
    lengths: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Window:
    frames: Tensor
    start: int
    length: int
    terms: WindowTerms | None


class WindowDecoder:
    """Decodes windows in groups of at most `most_windows`, with the frames that they lie in at most `most_frames`.

    A window's tokens do not depend on its group. On a GPU a group always has `most_windows` rows: those of a recording.
    """

    def __init__(
        self,
        decoder: TdtDecoder,
        pieces: Sequence[str],
        keyterms: Keyterms,
        *,
        most_windows: int,
        most_frames: int,
    ) -> None:
        self._decoder, self._pieces = decoder, tuple(pieces)
        self._most_windows, self._most_frames, self._keyterms = most_windows, most_frames, keyterms
        self._record_boosted: Callable[[Boost], None] | None = None

    @torch.inference_mode()
    def tokens(
        self, encoded: Sequence[EncodedWindows], terms: Sequence[WindowTerms | None] | None = None
    ) -> list[list[Token]]:
        """Return the tokens of each window; `terms` are the keyterms of each, None where no window has any."""
        places = [(one.frames, *place) for one in encoded for place in zip(one.starts, one.lengths, strict=True)]
        windows = [_Window(*place, one) for place, one in zip(places, terms or [None] * len(places), strict=True)]
        tokens: list[list[Token]] = []
        for group in _groups(windows, self._most_windows, self._most_frames):
            rows = _tokens_by_row(self._decoder(self._rows(group)), self._pieces)
            tokens += [next(rows) for _ in group]  # the rest are rows without a window
        return tokens

    @torch.inference_mode()
    def record(self, capture: Capture, device: torch.device, dtype: torch.dtype, report: Report) -> None:
        """Record the decoder for its rows, over frames as a last layer norm and a projection may leave them.

        The step with keyterms is recorded before the first windows that have any.
        """
        record = partial(self._record, capture, device, dtype, report)
        record(None)
        self._record_boosted = record

    def _record(
        self, capture: Capture, device: torch.device, dtype: torch.dtype, report: Report, boost: Boost | None
    ) -> None:
        longest = SLOT_FRAMES[-1]
        lengths = longest - torch.arange(self._most_windows, device=device) % longest
        frames = torch.randn(self._most_frames, self._decoder.joint_size, device=device, dtype=dtype)
        rows = DecoderRows(frames=frames, starts=torch.zeros_like(lengths), lengths=lengths, boost=boost)
        refused = partial(report, "engine.graph_refused", rows=self._most_windows)
        self._decoder.record(rows, capture, lambda reason: refused(reason=reason))

    def _rows(self, group: Sequence[_Window]) -> DecoderRows:
        passes = {id(window.frames): window.frames for window in group}
        frames = list(passes.values())
        offsets = dict(zip(passes, accumulate(map(len, frames), initial=0), strict=False))
        device = frames[0].device
        on_gpu = device.type == "cuda"
        rows = self._most_windows if on_gpu else max(LEAST_ROWS, len(group))
        filler = [0] * (rows - len(group))
        starts = [offsets[id(window.frames)] + window.start for window in group]
        places = torch.tensor([starts + filler, [window.length for window in group] + filler], pin_memory=on_gpu)
        places = places.to(device, non_blocking=on_gpu)
        if not any(map(len, frames)):
            frames = [frames[0].new_zeros(1, frames[0].shape[1])]
        boost = self._keyterms.rows([window.terms for window in group], rows)
        if boost and self._record_boosted:
            record, self._record_boosted = self._record_boosted, None
            record(boost)
        return DecoderRows(frames=torch.cat(frames), starts=places[0], lengths=places[1], boost=boost)


def _groups(windows: Sequence[_Window], most_windows: int, most_frames: int) -> Iterator[list[_Window]]:
    """Yield windows that are decoded at once, with the passes that they lie in."""
    group: list[_Window] = []
    passes: dict[int, int] = {}
    for window in windows:
        with_it = {**passes, id(window.frames): len(window.frames)}
        if group and (len(group) == most_windows or sum(with_it.values()) > most_frames):
            yield group
            group, with_it = [], {id(window.frames): len(window.frames)}
        group.append(window)
        passes = with_it
    if group:
        yield group


def _tokens_by_row(steps: Steps, pieces: Sequence[str]) -> Iterator[list[Token]]:
    for emitted, *values in zip(*(column.T.cpu() for column in steps), strict=True):
        rows = zip(*(value[emitted].tolist() for value in values), strict=True)
        yield [Token(pieces[label], frame, frames, confidence) for label, frame, frames, confidence in rows]
