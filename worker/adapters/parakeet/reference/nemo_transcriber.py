"""Windows in, words out, with NeMo's spectrogram and encoder: one window at a time, at its own length.

Decoding is the network's: NeMo 3.0's own batched loop gives durations that depend on the other windows.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from schemas.speech import Word
from worker.adapters.parakeet.frames import LONGEST_WINDOW_FRAMES, flow_of
from worker.adapters.parakeet.network.boosting import Keyterms, WindowTerms, window_terms
from worker.adapters.parakeet.network.calibration import Calibration
from worker.adapters.parakeet.network.config import SAMPLE_RATE_HZ
from worker.adapters.parakeet.network.passes import Samples
from worker.adapters.parakeet.network.tdt_decoder import TdtDecoder
from worker.adapters.parakeet.network.transcriber import BLOCK_STEPS
from worker.adapters.parakeet.network.weights import Weights
from worker.adapters.parakeet.network.window_decoder import EncodedWindows, WindowDecoder
from worker.adapters.parakeet.network.words import Token
from worker.adapters.parakeet.reference.nemo_model import pieces_of, transducer_of

_FULL_SCALE = 32_768


@dataclass(frozen=True, kw_only=True, slots=True)
class EncodedByNemo:
    """Windows with their encoder frames."""

    seconds: tuple[float, ...]
    parts: tuple[EncodedWindows, ...]
    terms: Sequence[WindowTerms | None]


class NemoTranscriber:
    """A model restored by NeMo, in the same two steps as `Transcriber`; one caller at a time.

    Slow on a GPU, where every window is a pass of its own, but each window's words depend on nothing else.
    """

    def __init__(
        self,
        network: Any,
        name: str,
        device: torch.device,
        dtype: torch.dtype,
        *,
        batch_windows: int,
        keyterm_weight: float = 0.0,
    ) -> None:
        config = transducer_of(network, name)
        weights = Weights(network.state_dict(), device, dtype)
        self._network, self._device, self._dtype = network, device, dtype
        self.flow, self.pieces = flow_of(batch_windows, aside=False), tuple(pieces_of(network))
        self.block_frames = None  # products have the size of a window
        self._transducer = TdtDecoder(weights, config, block_steps=BLOCK_STEPS)
        self._frame_samples = network.encoder.subsampling_factor * network.preprocessor.featurizer.hop_length
        self._decoder = WindowDecoder(
            self._transducer,
            self.pieces,
            Keyterms(self.pieces, keyterm_weight, device),
            frame_seconds=self._frame_samples / SAMPLE_RATE_HZ,
            most_windows=self.flow.decoded_windows,
            most_frames=self.flow.decoded_windows * LONGEST_WINDOW_FRAMES,
        )

    def calibrate(self, calibration: Calibration | None) -> None:
        """From now on give words calibrated confidences; None: those of their weakest pieces."""
        self._decoder.calibration = calibration

    def warm_up(self) -> None:
        """Encode and decode a second of silence."""
        self.decode([self.encode([torch.zeros(SAMPLE_RATE_HZ, dtype=torch.int16).numpy()])])

    def idle(self) -> bool:
        """Do nothing: no work waits for idle time."""
        return False

    def encode(self, windows: Sequence[Samples], keyterms: Sequence[tuple[str, ...]] = ()) -> EncodedByNemo:
        """Encode windows. Raises `torch.OutOfMemoryError` where one does not fit into memory."""
        return EncodedByNemo(
            seconds=tuple(len(window) / SAMPLE_RATE_HZ for window in windows),
            parts=tuple(self._encode(window) for window in windows),
            terms=window_terms(windows, keyterms, self._frame_samples),
        )

    def decode(self, batches: Sequence[EncodedByNemo]) -> list[tuple[tuple[Word, ...], ...]]:
        """Return the words of each window of each batch."""
        terms = [one for batch in batches for one in batch.terms]
        rows = iter(self._decoder.tokens([one for batch in batches for one in batch.parts], terms))
        return [tuple(self._decoder.words(next(rows), seconds) for seconds in one.seconds) for one in batches]

    def tokens(self, windows: Sequence[Samples]) -> list[list[Token]]:
        """Return the tokens of each window."""
        return self._decoder.tokens(self.encode(windows).parts)

    @torch.inference_mode()
    def _encode(self, window: Samples) -> EncodedWindows:
        wave = torch.from_numpy(window).to(self._device).float()[None] / _FULL_SCALE
        # A window of one frame has no spread to normalise by: where there is a GPU, NeMo raises.
        heard = len(window) if len(window) >= 2 * self._network.preprocessor.featurizer.hop_length else 0
        length = torch.tensor([heard], device=self._device)
        if not heard:
            none = torch.zeros(0, self._transducer.joint_size, dtype=self._dtype, device=self._device)
            return EncodedWindows(frames=none, starts=(0,), lengths=(0,))
        features, frames = self._network.preprocessor(input_signal=wave, length=length)
        encoded, lengths = self._network.encoder(audio_signal=features.to(self._dtype), length=frames)
        valid = encoded[0, :, : int(lengths)].t().contiguous()
        projected = self._transducer.project(valid, len(valid))
        return EncodedWindows(frames=projected, starts=(0,), lengths=(len(projected),))
