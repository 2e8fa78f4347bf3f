"""Windows in, words out: spectrogram, encoder, decoding, all as tensors; no file and no data loader.

In two steps, since each has a size of its own: the encoder's passes are as large as suits the device, while decoding,
bound by its number of steps, takes the windows of several passes at once, beside the passes that follow.
"""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import chain

import numpy as np
import torch
from torch import Tensor

from schemas.speech import Word
from worker.adapters.parakeet.aside import Aside
from worker.adapters.parakeet.buckets import BUCKETS_SAMPLES
from worker.adapters.parakeet.capture import CudaCapture
from worker.adapters.parakeet.decoding import GreedyTdt, Steps
from worker.adapters.parakeet.loaded import Lap, LoadedModel, no_lap
from worker.adapters.parakeet.padded import PaddedWindows
from worker.adapters.parakeet.whole import WholeWindows
from worker.adapters.parakeet.words import Token, words_of
from worker.ports import SAMPLE_RATE_HZ, Pcm

_DECODED_WINDOWS = 32
"""On the CPU, a window of the tiny model: 9.6 ms by 16, 6.7 by 24, 5.5 by 32; the encoder takes 70."""

_WINDOWS_OF_A_CHUNK = 12
"""On the CPU, rows that stay empty: as much as two windows in the encoder. To wait for the next chunk: as six."""

_BLOCK_STEPS = 8
"""A window of 30 s takes some 130 steps of the tiny model: the last block of all is half for nothing on average."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Encoded:
    """Windows that are on their way through the encoder: nobody has waited for it."""

    seconds: tuple[float, ...]
    """How long each window is."""
    parts: Iterable[tuple[Tensor, Tensor]]
    """What the encoder gives, to be taken once: some rows of shape (rows, frames, features) and their valid lengths, by
    and by, all in the windows' order."""


class WindowsToWords:
    """A loaded model that turns windows into words; one caller at a time.

    A window's words are bit for bit the same whatever shares its batch. On a GPU the encoder takes `batch_size` padded
    rows at once; on a CPU one window at its own length, which is faster there. The decoder always takes
    `decoded_windows` rows of a fixed length. `graphs`: on a GPU the encoder's passes and the decoder's steps may be
    recorded.

    On a CPU so many windows are encoded side by side as `threads` says, each by one thread: that scales better than
    threads within a matrix product, and leaves the words as they are. `lap` is told of each stage when the host is done
    with it: mel, encoder, decoding, words; with one thread only.
    """

    def __init__(
        self, model: LoadedModel, batch_size: int, *, threads: int = 1, graphs: bool = True, lap: Lap = no_lap
    ) -> None:
        self._network, self._device, self._dtype = model.network, model.device, model.dtype
        self._on_gpu = model.on_gpu
        self._batch_size, self._graphs, self._lap = batch_size, graphs, lap
        self._whole = None if model.on_gpu else WholeWindows.of(self._network)
        self._padded = PaddedWindows(model, batch_size if model.on_gpu else 1, graphs=graphs, lap=lap)
        self._map = map if threads == 1 else ThreadPoolExecutor(threads, "encoder").map
        self._encodes_aside = model.on_gpu or threads > 1
        self._aside = Aside(model.device)
        self._decode = GreedyTdt(self._network, block_steps=_BLOCK_STEPS)
        self._width: int = self._network.joint.enc.in_features
        spectrogram_frames = BUCKETS_SAMPLES[-1] // self._network.preprocessor.featurizer.hop_length
        self._longest_frames = -(-spectrogram_frames // self._network.encoder.subsampling_factor)
        self._frame_seconds = self._network.encoder.subsampling_factor * self._network.cfg.preprocessor.window_stride
        self._pieces: list[str] = self._network.tokenizer.ids_to_tokens(list(range(self._network.decoder.blank_idx)))

    @property
    def mixes_lengths(self) -> bool:
        """Windows need not be of one bucket: each goes through the encoder by itself, at its own length."""
        return self._whole is not None

    @property
    def batch_size(self) -> int:
        """How many windows a full batch has."""
        return self._batch_size

    @property
    def decoded_windows(self) -> int:
        """How many windows are decoded at once, at most."""
        return self._batch_size * max(1, _DECODED_WINDOWS // self._batch_size)

    @property
    def windows_ahead(self) -> int:
        """So many should be on their way before the first of them are decoded: then the encoder has what to do.

        Where it does nothing aside they are as many as another full batch might not fit in with.
        """
        if self._encodes_aside:
            return 2 * self.decoded_windows
        return max(self.decoded_windows // 2, self.decoded_windows - self._batch_size) + 1

    @property
    def windows_of_a_chunk(self) -> int:
        """So many are enough where a chunk ends with them."""
        return self.windows_ahead if self._encodes_aside else min(self.windows_ahead, _WINDOWS_OF_A_CHUNK)

    @property
    def windows_under_way(self) -> int:
        """So many keep it busy: some that are not answered yet, and some that it can begin meanwhile."""
        return self.decoded_windows + (self.windows_ahead if self._encodes_aside else self._batch_size)

    @property
    def pass_frames(self) -> tuple[int, ...]:
        """Empty: batches are bounded by their windows alone."""
        return ()

    @property
    def gap_frames(self) -> int:
        """Windows share no pass."""
        return 0

    def idle(self) -> bool:
        """Do nothing: no work waits for idle time."""
        return False

    def warm_up(self) -> None:
        """Pay now what the first batch would pay: on a GPU for windows of every length."""
        if self._on_gpu:
            self._warm_up_decoding()
            self._padded.warm_up(self._decoding_bytes())
        self([np.zeros(BUCKETS_SAMPLES[0], dtype=np.int16)])

    @torch.inference_mode()
    def _warm_up_decoding(self) -> None:
        """Before what the encoder's rows take is measured: what decoding keeps for good is then accounted for."""
        if not self._graphs:
            return
        with self._aside.working():
            rows, lengths = self._blank_rows()
            rows.normal_()  # as the encoder's last normalisation leaves its output
            lengths += self._longest_frames - torch.arange(len(lengths), device=self._device)
            self._decode.record(rows, lengths, CudaCapture())

    def _decoding_bytes(self) -> int:
        """What lies between the steps: what is encoded ahead, and what is decoded, which is projected first."""
        rows = self.windows_ahead + 2 * self.decoded_windows
        return int(rows * self._longest_frames * self._width * self._dtype.itemsize)

    def __call__(self, windows: Sequence[Pcm]) -> tuple[tuple[Word, ...], ...]:
        """The words of each window (1 to `batch_size`, all of one bucket unless it `mixes_lengths`), in order.

        Raises `torch.OutOfMemoryError` when not even one row at a time fits.
        """
        (words,) = self.decode([self.encode(windows)])
        return words

    @torch.inference_mode()
    def encode(self, windows: Sequence[Pcm]) -> Encoded:
        """Send the windows (as for a call) on their way through the encoder, and wait for nothing.

        Raises `torch.OutOfMemoryError` when not even one row at a time fits. With one thread on a CPU the work is done
        on return: windows that came meanwhile can then be decoded together with these.
        """
        parts: Iterable[tuple[Tensor, Tensor]]
        if self._whole:
            under_way = self._map(partial(self._encode_one, self._whole), windows)
            parts = under_way if self._encodes_aside else tuple(under_way)
        else:
            parts = self._aside.handed_over(self._padded(windows))
        return Encoded(seconds=tuple(len(window) / SAMPLE_RATE_HZ for window in windows), parts=parts)

    def decode(self, batches: Sequence[Encoded]) -> list[tuple[tuple[Word, ...], ...]]:
        """The words of each window of each batch; together they are no more than `decoded_windows`.

        Waits until they are encoded, and for nothing that was sent after them. Raises `torch.OutOfMemoryError`.
        """
        rows = iter(self._tokens(batches))
        seconds_of = partial(words_of, frame_seconds=self._frame_seconds)
        words = [tuple(seconds_of(next(rows), window_seconds=length) for length in one.seconds) for one in batches]
        self._lap("words")
        return words

    def tokens(self, windows: Sequence[Pcm]) -> list[list[Token]]:
        """The tokens of each window, given as for a call."""
        return self._tokens([self.encode(windows)])

    @torch.inference_mode()
    def _tokens(self, batches: Sequence[Encoded]) -> list[list[Token]]:
        with self._aside.working():
            rows = list(_tokens_by_row(self._decode(*self._side_by_side(batches)), self._pieces))
        self._lap("decoding")
        return rows[: sum(len(batch.seconds) for batch in batches)]  # the rest are filler rows

    def _side_by_side(self, batches: Sequence[Encoded]) -> tuple[Tensor, Tensor]:
        """What the decoder takes: rows and their valid lengths, 0 in filler rows.

        Always of the longest windows' shape: products of another shape could differ in their last bits.
        """
        rows, lengths = self._blank_rows()
        start = 0
        for encoded, valid in chain.from_iterable(batch.parts for batch in batches):
            end, frames = start + len(encoded), min(encoded.shape[1], self._longest_frames)
            rows[start:end, :frames] = encoded[:, :frames]
            lengths[start:end] = valid
            start = end
        return rows, lengths

    def _blank_rows(self) -> tuple[Tensor, Tensor]:
        shape = (self.decoded_windows, self._longest_frames, self._width)
        rows = torch.zeros(shape, dtype=self._dtype, device=self._device)
        return rows, torch.zeros(self.decoded_windows, dtype=torch.long, device=self._device)

    @torch.inference_mode()  # which each thread has for itself
    def _encode_one(self, whole: WholeWindows, window: Pcm) -> tuple[Tensor, Tensor]:
        if not whole.frames_of(len(window)):
            return torch.zeros(1, 0, self._width, dtype=self._dtype), torch.tensor([0])
        features = whole.features(window)
        self._lap("mel")
        encoded = whole.encode(features.to(self._dtype))
        self._lap("encoder")
        return encoded[None], torch.tensor([len(encoded)])


def _tokens_by_row(steps: Steps, pieces: Sequence[str]) -> Iterator[list[Token]]:
    for emitted, *values in zip(*(column.T.cpu() for column in steps.columns), strict=True):
        rows = zip(*(value[emitted].tolist() for value in values), strict=True)
        yield [Token(pieces[label], frame, frames, confidence) for label, frame, frames, confidence in rows]
