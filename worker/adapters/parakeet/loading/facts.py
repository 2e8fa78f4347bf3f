"""Facts of a model that its file does not state: its identity and its languages.

The identity keys every checkpoint, so nothing that can change words may be left out.
"""

import hashlib
from pathlib import Path, PurePath

import structlog
import torch

from worker.adapters.parakeet.loading.checksum_note import UnusualFileError, noted_sum, sum_of

log = structlog.get_logger()

CALIBRATION = "calibration.json"
"""Beside the weights, and not of them: it is in the fingerprint by itself."""

DECODING_VERSION = "4"
"""Part of every fingerprint: raised when a change of ours can give the same audio other words."""


def model_fingerprint(weights_sum: str, dtype: torch.dtype, engine: str) -> str:
    """Return the SHA-256, hex, of weights, precision, and what else shapes the arithmetic of `engine`."""
    return hashlib.sha256(f"{weights_sum},{DECODING_VERSION},{dtype},{engine}".encode()).hexdigest()


def weights_sum(model: Path) -> str:
    """Return the SHA-256, hex, of a `.nemo` file, from its note where there is one, or of a folder's files."""
    if model.is_dir():
        sums = (
            f"{file.name} {sum_of(file)}"
            for file in sorted(model.iterdir())
            if file.is_file() and file.name != CALIBRATION
        )
        return hashlib.sha256("\n".join(sums).encode()).hexdigest()
    try:
        return noted_sum(model)
    except FileNotFoundError:
        return sum_of(model)
    except (UnusualFileError, ValueError, KeyError, OSError) as error:
        log.warning("engine.note_not_believed", file=str(model), reason=f"{type(error).__name__}: {error}")
        return sum_of(model)


ENGLISH = frozenset({"en"})
EUROPEAN = frozenset(
    "bg hr cs da nl en et fi fr de el hu it lv lt mt pl pt ro sk sl es sv ru uk".split()  # noqa: SIM905  # readable
)
"""The 25 languages of parakeet-tdt-0.6b-v3, by its model card."""

_EUROPEAN_PIECES = 8_192
"""Size of the one tokenizer that v3 and the models made from it share; English models have 1,024 pieces."""

_BY_NAME = {
    "parakeet-tdt-0.6b-v2": ENGLISH,
    "parakeet-tdt-0.6b-v3": EUROPEAN,
    "parakeet-ultra": EUROPEAN,
    "orukeet": EUROPEAN,
}


def known_languages(model_name: str, vocabulary_size: int) -> frozenset[str]:
    """Return the languages, as ISO 639 codes, of a model by its hub name or path, or else by its vocabulary.

    A model that is known by neither is taken for English; `PARAKEET_LANGUAGES` overrides.
    """
    name = PurePath(model_name).name.lower().removesuffix(".nemo")
    if name in _BY_NAME:
        return _BY_NAME[name]
    return EUROPEAN if vocabulary_size == _EUROPEAN_PIECES else ENGLISH
