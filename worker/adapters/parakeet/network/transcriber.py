"""Windows in, words out: spectrogram, encoder, decoder, all as tensors.

In two steps, since each has a size of its own: passes of the encoder are as large as suits the device, while decoding,
bound by its number of steps, takes the windows of several passes at once, beside the passes that follow.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from schemas.speech import Word
from worker.adapters.parakeet.frames import LONGEST_WINDOW_FRAMES, WINDOW_FRAMES, WINDOWS_OF_A_BATCH, flow_of
from worker.adapters.parakeet.network.boosting import Keyterms, WindowTerms, window_terms
from worker.adapters.parakeet.network.calibration import Calibration
from worker.adapters.parakeet.network.config import SAMPLE_RATE_HZ
from worker.adapters.parakeet.network.cuda import HIGH_PRIORITY, CudaCapture, SideStream
from worker.adapters.parakeet.network.encoder import Encoder
from worker.adapters.parakeet.network.graphs import RecordedPasses, Report, ignore
from worker.adapters.parakeet.network.layout import PassShape
from worker.adapters.parakeet.network.pass_sizes import (
    PassLimit,
    blocks_within,
    free_bytes,
    pass_sizes,
)
from worker.adapters.parakeet.network.passes import (
    Lap,
    LonePasses,
    PackedPasses,
    Parts,
    Samples,
    new_features,
    no_lap,
    run_pass,
)
from worker.adapters.parakeet.network.spectrogram import LogMel
from worker.adapters.parakeet.network.tdt_decoder import TdtDecoder
from worker.adapters.parakeet.network.weights import Weights
from worker.adapters.parakeet.network.window_decoder import EncodedWindows, WindowDecoder
from worker.adapters.parakeet.network.words import Token

if TYPE_CHECKING:
    from worker.adapters.parakeet.loading.model_files import ModelFiles

BLOCK_STEPS = 8
"""Decoding steps between two checks. A window of 30 s takes some 130: half a block is wasted on average."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Encoded:
    """Windows on their way through the encoder; nothing has waited for it."""

    seconds: tuple[float, ...]
    """The length of each window."""
    parts: Iterable[EncodedWindows]
    """The encoder's output, to be taken once."""
    terms: Sequence[WindowTerms | None]
    """The keyterms of each window."""


class FloatOverflow(Exception):
    """The encoder's numbers left the range of the network's precision."""


class Transcriber:
    """A Parakeet TDT network that turns windows of at most 40 s into words; one caller at a time.

    A window's words, times and rounded confidences do not depend on what is encoded and decoded with it; on a CPU they
    are the same to the last bit. On a GPU
    windows share passes of a few sizes, at most `batch_windows` windows of 30 s or, where that is None, as suits the
    GPU; with `graphs` passes and decoding steps are repeated from recordings. On a CPU each window has a pass of its
    own, `threads` of them side by side.

    `report` receives events and their fields; `lap` the name of each stage when the host is done with it: mel, encoder,
    decoding, words; with one thread only.
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
        lap: Lap = no_lap,
    ) -> None:
        weights = Weights(files.weights, device, dtype)
        self.pieces = tuple(files.pieces)
        self.parts = Parts(
            config=files.config,
            log_mel=LogMel(weights, files.config),
            encoder=Encoder(weights, files.config),
            decoder=TdtDecoder(weights, files.config, block_steps=BLOCK_STEPS),
            device=device,
            dtype=dtype,
        )
        self._on_gpu, self._graphs, self._report, self._lap = device.type == "cuda", graphs, report, lap
        self._side = SideStream(device)
        self._pass_bytes = 0
        self._recorded: RecordedPasses | None = None
        self._passes: LonePasses | PackedPasses
        self.block_frames: int | None = None
        """Frames that products take at once, on which last bits depend; None: those of the window."""
        longest_pass = 0
        if self._on_gpu:
            processors = torch.cuda.get_device_properties(device).multi_processor_count
            sizes = pass_sizes(files.config, processors, batch_windows)
            self.block_frames, longest_pass = sizes.block, sizes.frames[-1]
            self.flow = flow_of(
                max(1, longest_pass // WINDOW_FRAMES), aside=True, sizes=sizes.frames, gap_frames=sizes.gap
            )
            self._limit = PassLimit(sizes.blocks[-1])
            if graphs:
                self._recorded = self._recorded_passes()
            self._passes = PackedPasses(self.parts, sizes, self._limit, self._recorded, report=report, lap=lap)
        else:
            self.flow = flow_of(batch_windows or WINDOWS_OF_A_BATCH, aside=threads > 1)
            self._passes = LonePasses(self.parts, threads=threads, lap=lap)
        self._decoder = WindowDecoder(
            self.parts.decoder,
            self.pieces,
            Keyterms(self.pieces, keyterm_weight, device),
            frame_seconds=files.config.frame_seconds,
            most_windows=self.flow.decoded_windows,
            most_frames=self.flow.decoded_windows * WINDOW_FRAMES + longest_pass,
        )

    def calibrate(self, calibration: Calibration | None) -> None:
        """From now on give words calibrated confidences; None: those of their weakest pieces."""
        self._decoder.calibration = calibration

    def warm_up(self) -> None:
        """Run what the first window would otherwise wait for, and on a GPU bound passes by the free memory.

        One pass of one block and a recording of the decoder: passes of the encoder are recorded later, see `idle`.
        """
        silence = np.zeros(5 * SAMPLE_RATE_HZ, dtype=np.int16)
        if not self._on_gpu:
            self([silence])
            return
        if self._graphs:
            with self._side.working():
                capture = CudaCapture(priority=HIGH_PRIORITY)
                self._decoder.record(capture, self.parts.device, self.parts.dtype, self._report)
        before = torch.cuda.memory_allocated(self.parts.device)
        torch.cuda.reset_peak_memory_stats(self.parts.device)
        self([silence])
        block_bytes = torch.cuda.max_memory_allocated(self.parts.device) - before
        free = free_bytes(self.parts.device) - self._encoded_bytes()
        most = self._limit.blocks
        self._limit.set_most(blocks_within(free, block_bytes, most))
        self._pass_bytes = self._limit.blocks * block_bytes
        if self._limit.blocks < most:
            self._report("engine.rows_limited", blocks=self._limit.blocks, wanted=most)

    def idle(self) -> bool:
        """Do something useful while no window is waiting: record a pass. Returns False where there is nothing to do."""
        return self._recorded is not None and self._recorded.record_pending()

    def __call__(self, windows: Sequence[Samples]) -> tuple[tuple[Word, ...], ...]:
        """Return the words of each window, in order. Raises `torch.OutOfMemoryError`."""
        (words,) = self.decode([self.encode(windows)])
        return words

    def encode(self, windows: Sequence[Samples], keyterms: Sequence[tuple[str, ...]] = ()) -> Encoded:
        """Start the windows' way through the encoder, without waiting for a GPU.

        With one thread on a CPU they are encoded on return. Raises `torch.OutOfMemoryError` when not even the smallest
        pass fits into memory, and ValueError for a window that is longer than 40.96 s. `keyterms` are those of each
        window; none: no window has any.
        """
        most = LONGEST_WINDOW_FRAMES
        if windows and (longest := max(map(len, windows))) > 0 and self.parts.config.encoder_frames(longest) > most:
            raise ValueError(f"a window of {longest} samples is longer than {most * self.parts.config.frame_seconds} s")
        parts: Iterable[EncodedWindows] = self._passes(windows)
        if self._on_gpu:
            parts = self._handed_over(tuple(parts))
        return Encoded(
            seconds=tuple(len(window) / SAMPLE_RATE_HZ for window in windows),
            parts=parts,
            terms=window_terms(windows, keyterms, self.parts.config.hop_samples * self.parts.config.subsampling_factor),
        )

    def decode(self, batches: Sequence[Encoded]) -> list[tuple[tuple[Word, ...], ...]]:
        """Return the words of each window of each batch, once they are encoded. Raises `torch.OutOfMemoryError`."""
        rows = iter(self._tokens(batches))
        words = [tuple(self._decoder.words(next(rows), seconds) for seconds in one.seconds) for one in batches]
        self._lap("words")
        return words

    def tokens(self, windows: Sequence[Samples]) -> list[list[Token]]:
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
        finite = [torch.isfinite(one.frames).all() for one in parts] if self.parts.dtype == torch.float16 else []
        handed_over = self._side.handed_over((*(one.frames for one in parts), *finite))
        return _finite(parts, handed_over)

    def _encoded_bytes(self) -> int:
        """Return the memory between the steps: what is encoded ahead, and what is decoded."""
        windows = self.flow.windows_ahead + 2 * self.flow.decoded_windows
        return windows * LONGEST_WINDOW_FRAMES * self.parts.config.d_joint * self.parts.dtype.itemsize

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
