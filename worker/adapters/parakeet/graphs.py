"""The encoder as CUDA graphs, one for each length of windows.

What NeMo 3.0's `ConformerEncoder.forward` does that a recording would not bear, or would freeze:

- `update_max_seq_length` asks all ranks for the longest input and waits for the answer, once `torch.distributed` is
  initialised: never in our process. Beyond `pos_emb_max_len` (5,000 frames; 40 s are 4,001) it makes the table of
  positions anew, while a graph keeps the address of the old one: a pass of the longest windows comes before all graphs.
- `pre_encode` splits batches of more than 2^31 / channels * 4 values: by shape alone, and a graph is of one shape.
- Masks are made on the device from `length`, by comparison and without a look at its values: an input of the graph.
- Dropout, random contexts and dropped layers belong to training; the model is frozen.

Nothing else reads a value, moves a tensor between host and device or keeps one: a test runs the layers on tensors that
have no values. The spectrogram, of few kernels, is not recorded; ours waits for nothing either, but NeMo's does: its
`normalize_batch` refuses rows of one frame.
"""

from collections.abc import Callable, Mapping
from functools import partial

import structlog
import torch
from torch import Tensor

from worker.adapters.parakeet.capture import Capture

log = structlog.get_logger()

Encode = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""Features of shape (rows, bands, frames) and each row's valid frames, to (rows, width, frames) and valid frames."""


class RecordedEncoder:
    """An encoder that repeats a recording where it has one for the windows' length and number of rows.

    Everything else goes to `encode` itself, and so does what was recorded but is not to the last bit what `encode`
    gives. One caller at a time.
    """

    def __init__(self, encode: Encode) -> None:
        self._encode = encode
        self._recordings: dict[tuple[int, int], Encode] = {}

    @property
    def recorded(self) -> frozenset[tuple[int, int]]:
        """The samples and rows that a recording stands for."""
        return frozenset(self._recordings)

    @torch.inference_mode()
    def __call__(self, samples: int, features: Tensor, frames: Tensor) -> tuple[Tensor, Tensor]:
        """The encoder's answer for rows of windows padded to that many samples."""
        return self._recordings.get((samples, len(features)), self._encode)(features, frames)

    def forget(self) -> None:
        """Give the recordings' memory back for good, now that it is needed for more than speed."""
        if self._recordings:
            log.warning("engine.graphs_forgotten", graphs=len(self._recordings))
        self._recordings.clear()

    @torch.inference_mode()
    def record(
        self,
        rows_of: Mapping[int, int],
        inputs: Callable[[int, int], tuple[Tensor, Tensor]],
        capture: Capture,
        leaves_room: Callable[[], bool],
    ) -> None:
        """Record a pass for each number of samples and its rows, the longest first: the others fit into its memory.

        `inputs` makes features and valid frames, not all alike, for samples and rows. A recording is refused, with a
        warning, when it fails, when afterwards there is no room, or when, all being recorded, `inputs` tell it from
        `encode`.
        """

        def record_one(samples: int, features: Tensor, frames: Tensor) -> None:
            # Over other values than it is checked with: what it did not take for an input is then found out.
            blank = torch.zeros_like(features), torch.full_like(frames, features.shape[-1])
            self._recordings[samples, len(features)] = _recorded(self._encode, blank, capture)
            if not leaves_room():
                raise RuntimeError("it leaves too little memory")

        def check_one(samples: int, features: Tensor, frames: Tensor) -> None:
            expected, got = self._encode(features, frames), self(samples, features, frames)
            if not all(map(torch.equal, expected, got)):
                raise RuntimeError("it is not to the last bit what the encoder gives")

        longest_first = sorted(rows_of.items(), reverse=True)
        for step in (record_one, check_one):
            for samples, rows in longest_first:
                try:
                    step(samples, *inputs(samples, rows))
                except RuntimeError as exc:
                    self._recordings.pop((samples, rows), None)
                    log.warning("engine.graph_refused", samples=samples, rows=rows, reason=str(exc))


def _recorded(encode: Encode, inputs: tuple[Tensor, Tensor], capture: Capture) -> Encode:
    """The encoder over these inputs, which are the recording's from now on."""
    repeat = capture(partial(encode, *inputs))

    def replay(features: Tensor, frames: Tensor) -> tuple[Tensor, Tensor]:
        for mine, new in zip(inputs, (features, frames), strict=True):
            mine.copy_(new)
        encoded, lengths = repeat()
        return encoded.clone(), lengths.clone()  # its memory is for the next repeat

    return replay
