import pytest

from worker.adapters.parakeet.loading.facts import ENGLISH, EUROPEAN, known_languages


@pytest.mark.parametrize(
    ("name", "pieces", "languages"),
    [
        ("nvidia/parakeet-tdt-0.6b-v2", 1_024, ENGLISH),
        ("nvidia/parakeet-tdt-0.6b-v3", 8_192, EUROPEAN),
        ("moondream/parakeet-ultra", 8_192, EUROPEAN),
        ("/models/Orukeet.nemo", 8_192, EUROPEAN),
        ("/models/parakeet-tdt-0.6b-v3.nemo", 8_192, EUROPEAN),
        ("/models/parakeet.nemo", 8_192, EUROPEAN),
        ("/models/parakeet.nemo", 1_024, ENGLISH),
        ("/models/tiny.nemo", 256, ENGLISH),
    ],
)
def test_languages_are_known_by_name_or_by_vocabulary(name: str, pieces: int, languages: frozenset[str]) -> None:
    assert known_languages(name, pieces) == languages


def test_the_european_models_have_25_languages() -> None:
    assert len(EUROPEAN) == 25
    assert {"en", "de", "ru", "uk", "mt"} <= EUROPEAN
