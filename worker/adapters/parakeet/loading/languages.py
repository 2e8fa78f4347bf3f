"""Languages of known models. A model's file does not say which languages it was trained on."""

from pathlib import PurePath

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
