"""Windows in, words out, in two steps: spectrogram and encoder; decoder and words."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from schemas.speech import Word
from worker.adapters.parakeet.frames import LONGEST_WINDOW_FRAMES, WINDOW_FRAMES, WINDOWS_OF_A_BATCH, Flow, flow_of
from worker.adapters.parakeet.network.boosting import Keyterms, WindowTerms, window_terms
from worker.adapters.parakeet.network.cuda import HIGH_PRIORITY, CudaCapture, RecordedPasses, Report, SideStream, ignore
from worker.adapters.parakeet.network.layout import PassShape
from worker.adapters.parakeet.network.passes import (
    Lap,
    LonePasses,
    PackedPasses,
    Parts,
    Passes,
    PassLimit,
    blocks_within,
    free_bytes,
    new_features,
    pass_sizes,
    run_pass,
)
from worker.adapters.parakeet.network.tdt_decoder import TdtDecoder
from worker.adapters.parakeet.network.weights import Weights
from worker.adapters.parakeet.network.window_decoder import EncodedWindows, WindowDecoder
from worker.adapters.parakeet.network.words import Calibration, Token, words_of
from worker.ports import SAMPLE_RATE_HZ, Pcm

if TYPE_CHECKING:
    from worker.adapters.parakeet.loading.model_files import ModelFiles


@dataclass(frozen=True, kw_only=True, slots=True)
class Encoded:
    """Windows on their way through the encoder."""

    seconds: tuple[float, ...]
    """The length of each window."""
    parts: Iterable[EncodedWindows]
    """The encoder's output, to be taken once."""
    terms: Sequence[WindowTerms | None]
    """The keyterms of each window."""


class FloatOverflow(Exception):
    """The encoder's numbers left the range of the network's precision."""


class TwoStepTranscriber:
    """A model that turns windows of at most 40 s into words, whatever encodes them; one caller at a time.

    A window's words, times and rounded confidences do not depend on what is encoded and decoded with it.
    """

    def __init__(
        self,
        passes: Passes,
        decoder: TdtDecoder,
        pieces: Sequence[str],
        *,
        flow: Flow,
        device: torch.device,
        dtype: torch.dtype,
        frame_samples: int,
        keyterm_weight: float,
        block_frames: int | None = None,
        lap: Lap = ignore,
    ) -> None:
        self._passes, self.pieces, self.flow, self._lap = passes, tuple(pieces), flow, lap
        self._device, self._dtype, self._frame_samples = device, dtype, frame_samples
        self._on_gpu = device.type == "cuda"
        self.block_frames = block_frames
        """Frames that products take at once, on which last bits depend; None: those of the window."""
        self._calibration: Calibration | None = None
        self._side = SideStream(device)
        self._decoder = WindowDecoder(
            decoder,
            self.pieces,
            Keyterms(self.pieces, keyterm_weight, device),
            most_windows=flow.decoded_windows,
            most_frames=flow.decoded_windows * WINDOW_FRAMES + flow.plan.capacity,
        )

    def calibrate(self, calibration: Calibration | None) -> None:
        """From now on give words calibrated confidences; None: those of their weakest pieces."""
        self._calibration = calibration

    def warm_up(self) -> None:
        """Run what the first window would otherwise wait for."""
        self([np.zeros(5 * SAMPLE_RATE_HZ, dtype=np.int16)])

    def idle(self) -> bool:
        """See `TwoStepModel`."""
        return False

    def __call__(self, windows: Sequence[Pcm]) -> tuple[tuple[Word, ...], ...]:
        """Return the words of each window, in order. Raises `torch.OutOfMemoryError`."""
        (words,) = self.decode([self.encode(windows)])
        return words

    def encode(self, windows: Sequence[Pcm], keyterms: Sequence[tuple[str, ...]] = ()) -> Encoded:
        """See `TwoStepModel`. With one thread on a CPU the windows are encoded on return.

        Raises `torch.OutOfMemoryError` when not even the smallest pass fits into memory, and ValueError for a window
        that is longer than 40.96 s.
        """
        parts = self._passes(windows)
        if self._on_gpu:
            parts = self._handed_over(tuple(parts))
        return Encoded(
            seconds=tuple(len(window) / SAMPLE_RATE_HZ for window in windows),
            parts=parts,
            terms=window_terms(windows, keyterms, self._frame_samples),
        )

    def decode(self, batches: Sequence[Encoded]) -> list[tuple[tuple[Word, ...], ...]]:
        """See `TwoStepModel`."""
        rows = iter(self._tokens(batches))
        words = [tuple(self._words(next(rows), seconds) for seconds in one.seconds) for one in batches]
        self._lap("words")
        return words

    def _words(self, tokens: Sequence[Token], window_seconds: float) -> tuple[Word, ...]:
        return words_of(
            tokens,
            frame_seconds=self._frame_samples / SAMPLE_RATE_HZ,
            window_seconds=window_seconds,
            calibration=self._calibration,
        )

    def tokens(self, windows: Sequence[Pcm]) -> list[list[Token]]:
        """Return the tokens of each window. Raises as `encode` does."""
        return self._tokens([self.encode(windows)])

    def _tokens(self, batches: Sequence[Encoded]) -> list[list[Token]]:
        with self._side.working():
            terms = [one for batch in batches for one in batch.terms]
            tokens = self._decoder.tokens([one for batch in batches for one in batch.parts], terms)
        self._lap("decoding")
        return tokens

    def _handed_over(self, parts: Sequence[EncodedWindows]) -> Iterator[EncodedWindows]:
        """Hand over to the decoder's stream what this stream computes now, to be taken later."""
        finite = [torch.isfinite(one.frames).all() for one in parts] if self._dtype == torch.float16 else []
        handed_over = self._side.handed_over((*(one.frames for one in parts), *finite))
        return _finite(parts, handed_over)


class Transcriber(TwoStepTranscriber):
    """A Parakeet TDT network; on a CPU a window's words are the same to the last bit in any company.

    Raises `WrongWeights` for files whose weights are not those of their configuration.

    On a GPU windows share passes of a few sizes, at most `batch_windows` windows of 30 s or, where that is None, as
    suits the GPU; with `graphs` passes and decoding steps are repeated from recordings. On a CPU each window has a pass
    of its own, `threads` of them side by side.

    `report` receives events and their fields; `lap` stages, with one thread only.
    """

    def __init__(
        self,
        files: "ModelFiles",
        device: torch.device,
        dtype: torch.dtype,
        *,
        batch_windows: int | None = None,
        threads: int = 1,
        graphs: bool = True,
        keyterm_weight: float = 0.0,
        report: Report = ignore,
        lap: Lap = ignore,
    ) -> None:
        config = files.config
        self.parts = Parts.of(config, Weights(files.weights, device, dtype))
        self._report, self._pass_bytes = report, 0
        self._recorded: RecordedPasses | None = None
        passes: Passes
        block_frames = None
        if device.type == "cuda":
            processors = torch.cuda.get_device_properties(device).multi_processor_count
            sizes = pass_sizes(config, processors, batch_windows)
            block_frames, full = sizes.block, max(1, sizes.frames[-1] // WINDOW_FRAMES)
            flow = flow_of(full, aside=True, sizes=sizes.frames, gap_frames=sizes.gap)
            self._limit = PassLimit(sizes.blocks[-1])
            if graphs:
                self._recorded = self._recorded_passes()
            passes = PackedPasses(self.parts, sizes, self._limit, self._recorded, report=report, lap=lap)
        else:
            flow = flow_of(batch_windows or WINDOWS_OF_A_BATCH, aside=threads > 1)
            passes = LonePasses(self.parts, threads=threads, lap=lap)
        super().__init__(
            passes,
            self.parts.decoder,
            files.pieces,
            flow=flow,
            device=device,
            dtype=dtype,
            frame_samples=config.hop_samples * config.subsampling_factor,
            keyterm_weight=keyterm_weight,
            block_frames=block_frames,
            lap=lap,
        )

    def warm_up(self) -> None:
        """Run what the first window would otherwise wait for, and on a GPU bound passes by the free memory.

        One pass of one block, and a recording of the decoder: passes are recorded in `idle`.
        """
        if not self._on_gpu:
            super().warm_up()
            return
        if self._recorded:
            with self._side.working():
                self._decoder.record(CudaCapture(priority=HIGH_PRIORITY), self._device, self._dtype, self._report)
        before = torch.cuda.memory_allocated(self._device)
        torch.cuda.reset_peak_memory_stats(self._device)
        super().warm_up()
        block_bytes = torch.cuda.max_memory_allocated(self._device) - before
        free = free_bytes(self._device) - self._encoded_bytes()
        most = self._limit.blocks
        self._limit.set_most(blocks_within(free, block_bytes, most))
        self._pass_bytes = self._limit.blocks * block_bytes
        if self._limit.blocks < most:
            self._report("engine.rows_limited", blocks=self._limit.blocks, wanted=most)

    def idle(self) -> bool:
        """See `TwoStepModel`."""
        return self._recorded is not None and self._recorded.record_pending()

    def _encoded_bytes(self) -> int:
        """Return the memory between the steps: what is encoded ahead, and what is decoded."""
        windows = self.flow.windows_ahead + 2 * self.flow.decoded_windows
        return windows * LONGEST_WINDOW_FRAMES * self.parts.config.d_joint * self._dtype.itemsize

    def _recorded_passes(self) -> RecordedPasses:
        parts = self.parts

        def blank_inputs(shape: PassShape) -> tuple[Tensor, Tensor]:
            plan = torch.zeros(shape.plan_size, dtype=torch.int64, device=parts.device)
            return new_features(parts, shape), plan

        def leaves_room() -> bool:
            return free_bytes(parts.device) > self._encoded_bytes() + self._pass_bytes

        return RecordedPasses(partial(run_pass, parts), blank_inputs, CudaCapture, leaves_room, self._report)


def _finite(parts: Sequence[EncodedWindows], handed_over: Iterator[tuple[Tensor, ...]]) -> Iterator[EncodedWindows]:
    """Yield the parts once they are handed over. Raises `FloatOverflow` where float16 was too small for them."""
    for tensors in handed_over:
        if not all(map(bool, tensors[len(parts) :])):
            raise FloatOverflow("the encoder left the range of float16: set GPU_PRECISION=bfloat16")
        yield from parts
