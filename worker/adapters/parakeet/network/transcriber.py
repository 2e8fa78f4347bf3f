"""Windows in, words out: spectrogram, encoder, decoder, all as tensors.

In two steps, since each has a size of its own: passes of the encoder are as large as suits the device, while decoding,
bound by its number of steps, takes the windows of several passes at once, beside the passes that follow.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from schemas.speech import Word
from worker.adapters.parakeet.network.boosting import Keyterms, WindowTerms, window_terms
from worker.adapters.parakeet.network.calibration import Calibration
from worker.adapters.parakeet.network.config import SAMPLE_RATE_HZ, NetworkConfig
from worker.adapters.parakeet.network.cuda import HIGH_PRIORITY, CudaCapture, SideStream
from worker.adapters.parakeet.network.encoder import LONGEST_WINDOW_FRAMES, Encoder
from worker.adapters.parakeet.network.graphs import RecordedPasses, Report, ignore
from worker.adapters.parakeet.network.layout import PassShape, PassSizes
from worker.adapters.parakeet.network.pass_sizes import (
    PASS_WINDOW_FRAMES,
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

DECODED_WINDOWS = 32
"""Windows that are decoded at once. On a CPU a window of the tiny model takes 9.6 ms by 16, 6.7 by 24, 5.5 by 32."""

BLOCK_STEPS = 8
"""Decoding steps between two checks. A window of 30 s takes some 130: half a block is wasted on average."""

_CHUNK_WINDOWS = 12
"""On a CPU the decoder's rows that stay empty at the end of a chunk cost as much as two windows of the encoder."""

WINDOWS_OF_A_BATCH = 8
"""Windows of 30 s in a batch where the device does not say."""


class ModelParts(Protocol):
    """A model to build the network from."""

    @property
    def config(self) -> NetworkConfig:
        """The network's sizes."""
        ...

    @property
    def weights(self) -> Mapping[str, Tensor]:
        """Parameters by NeMo's names, on the CPU."""
        ...

    @property
    def pieces(self) -> Sequence[str]:
        """SentencePiece pieces by label."""
        ...


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
        files: ModelParts,
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
        self._config, self.pieces = files.config, tuple(files.pieces)
        self._parts = Parts(
            config=files.config,
            log_mel=LogMel(weights, files.config),
            encoder=Encoder(weights, files.config),
            decoder=TdtDecoder(weights, files.config, block_steps=BLOCK_STEPS),
            device=device,
            dtype=dtype,
        )
        self._on_gpu, self._graphs, self._report, self._lap = device.type == "cuda", graphs, report, lap
        self._encodes_aside = self._on_gpu or threads > 1
        self._side = SideStream(device)
        self._pass_bytes = 0
        self._sizes: PassSizes | None = None
        self._recorded: RecordedPasses | None = None
        if self._on_gpu:
            processors = torch.cuda.get_device_properties(device).multi_processor_count
            self._sizes = pass_sizes(files.config, processors, batch_windows)
            self._limit = PassLimit(self._sizes.blocks[-1])
            if graphs:
                self._recorded = self._recorded_passes()
            self._passes: LonePasses | PackedPasses = PackedPasses(
                self._parts, self._sizes, self._limit, self._recorded, report=report, lap=lap
            )
        else:
            self._passes = LonePasses(self._parts, threads=threads, lap=lap)
        self._batch_windows = batch_windows or WINDOWS_OF_A_BATCH
        self._decoder = WindowDecoder(
            self._parts.decoder,
            self.pieces,
            Keyterms(self.pieces, keyterm_weight, device),
            frame_seconds=files.config.frame_seconds,
            most_windows=self.decoded_windows,
            most_frames=self.decoded_windows * PASS_WINDOW_FRAMES + (self._sizes.frames[-1] if self._sizes else 0),
        )

    @property
    def parts(self) -> Parts:
        """The network's parts up to the decoder."""
        return self._parts

    @property
    def pass_frames(self) -> tuple[int, ...]:
        """The sizes in frames that a pass can have, ascending; empty where a pass has the frames of its window."""
        return self._sizes.frames if self._sizes else ()

    @property
    def gap_frames(self) -> int:
        """Frames that a window takes in a pass besides its own."""
        return self._sizes.gap if self._sizes else 0

    @property
    def block_frames(self) -> int | None:
        """Frames that products and convolutions take at once, on which last bits depend; None: those of the window."""
        return self._sizes.block if self._sizes else None

    @property
    def batch_size(self) -> int:
        """Windows of 30 s in a full batch."""
        return max(1, self._sizes.frames[-1] // PASS_WINDOW_FRAMES) if self._sizes else self._batch_windows

    @property
    def decoded_windows(self) -> int:
        """Most windows that are decoded at once."""
        return self.batch_size * max(1, DECODED_WINDOWS // self.batch_size)

    @property
    def windows_ahead(self) -> int:
        """Windows that should be encoded, or on their way, before the first of them are decoded.

        Where the encoder runs aside it then has work meanwhile. Where it does not they are as many as another full
        batch might not fit in with.
        """
        if self._encodes_aside:
            return 2 * self.decoded_windows
        return max(self.decoded_windows // 2, self.decoded_windows - self.batch_size) + 1

    @property
    def windows_of_a_chunk(self) -> int:
        """The same where no window waits behind them."""
        return self.windows_ahead if self._encodes_aside else min(self.windows_ahead, _CHUNK_WINDOWS)

    @property
    def windows_under_way(self) -> int:
        """Windows that keep the transcriber busy: some that are not answered yet, and some to begin meanwhile."""
        return self.decoded_windows + (self.windows_ahead if self._encodes_aside else self.batch_size)

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
                self._decoder.record(capture, self._parts.device, self._parts.dtype, self._report)
        before = torch.cuda.memory_allocated(self._parts.device)
        torch.cuda.reset_peak_memory_stats(self._parts.device)
        self([silence])
        block_bytes = torch.cuda.max_memory_allocated(self._parts.device) - before
        free = free_bytes(self._parts.device) - self._encoded_bytes()
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
        if windows and (longest := max(map(len, windows))) > 0 and self._config.encoder_frames(longest) > most:
            raise ValueError(f"a window of {longest} samples is longer than {most * self._config.frame_seconds} s")
        parts: Iterable[EncodedWindows] = self._passes(windows)
        if self._on_gpu:
            parts = self._handed_over(tuple(parts))
        return Encoded(
            seconds=tuple(len(window) / SAMPLE_RATE_HZ for window in windows),
            parts=parts,
            terms=window_terms(windows, keyterms, self._config.hop_samples * self._config.subsampling_factor),
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
        finite = [torch.isfinite(one.frames).all() for one in parts] if self._parts.dtype == torch.float16 else []
        handed_over = self._side.handed_over((*(one.frames for one in parts), *finite))
        return _finite(parts, handed_over)

    def _encoded_bytes(self) -> int:
        """Return the memory between the steps: what is encoded ahead, and what is decoded."""
        windows = self.windows_ahead + 2 * self.decoded_windows
        return windows * LONGEST_WINDOW_FRAMES * self._config.d_joint * self._parts.dtype.itemsize

    def _recorded_passes(self) -> RecordedPasses:
        parts = self._parts

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
