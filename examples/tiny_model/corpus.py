"""The corpora: texts and voices, planned from a seed, then synthesised into two files.

python corpus.py CORPUS        writes CORPUS.npy (int16, all clips joined) and CORPUS.jsonl (one line a clip)
"""

import argparse
import json
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from subprocess import CalledProcessError

import grammar
import numpy as np
from numpy.typing import NDArray
from voices import SAMPLE_RATE_HZ, EspeakVoice, FestivalVoice, FliteVoice, Synthesiser, Voice

ACCENTS = ["en-us"] * 4 + ["en", "en-gb-x-rp", "en-gb-scotland", "en-us-nyc", "en-029", "en-gb-x-gbclan"]
_VARIANTS = """
+m1 +m2 +m3 +m4 +m5 +m6 +m7 +m8 +f1 +f2 +f3 +f4 +f5 +klatt +klatt2 +klatt3 +klatt4 +adam +Alex +Andrea +Annie +belinda
+david +ed +edward +Gene +linda +john +Lee +Mario +Michael +Mike +robert +shelby +steph +zac +Denis +aunty +paul
"""
VARIANTS = ["", *_VARIANTS.split()]
FLITE_VOICES = ["kal16", "slt", "awb"]
FESTIVAL_VOICES = ["kal_diphone", "ked_diphone", "cmu_us_slt_arctic_hts"]


@dataclass(frozen=True, kw_only=True)
class Take:
    """One text to synthesise; `group` names the kind of voice, `unseen ...` for those kept out of training."""

    group: str
    text: str
    voice: Voice


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Number of takes of each engine, and the seed; `unseen` is the number for each of two voices not trained on."""

    seed: int
    espeak: int
    flite: int
    festival: int
    unseen: int = 0


RECIPES = {
    "train1": Recipe(seed=1, espeak=4800, flite=1300, festival=400),
    "train2": Recipe(seed=2, espeak=4800, flite=1300, festival=400),
    "eval": Recipe(seed=999, espeak=120, flite=60, festival=40, unseen=60),
    "test": Recipe(seed=31337, espeak=200, flite=120, festival=60, unseen=60),
}


def plan(recipe: Recipe) -> tuple[Take, ...]:
    """Every take of a corpus, a pure function of its recipe."""
    rng = random.Random(recipe.seed)
    groups = ["espeak"] * recipe.espeak + ["flite"] * recipe.flite + ["festival"] * recipe.festival
    rng.shuffle(groups)
    groups += ["unseen espeak"] * recipe.unseen + ["unseen flite"] * recipe.unseen
    return tuple(_take(group, rng) for group in groups)


def known_texts() -> frozenset[str]:
    """Every text the shipped model has met, in training or while it was chosen and tested."""
    return frozenset(take.text for recipe in RECIPES.values() for take in plan(recipe))


def _take(group: str, rng: random.Random) -> Take:
    return Take(group=group, text=grammar.utterance(rng), voice=_VOICES[group](rng))


def _espeak(rng: random.Random) -> EspeakVoice:
    return EspeakVoice(
        name=rng.choice(ACCENTS) + rng.choice(VARIANTS),
        words_per_minute=rng.randint(115, 200),
        pitch=rng.randint(25, 75),
        pitch_range=rng.randint(30, 70),
        gap_10ms=rng.choice([0, 0, 0, 1, 2, 4]),
    )


def _flite(rng: random.Random) -> FliteVoice:
    name, stretch = rng.choice(FLITE_VOICES), rng.uniform(0.85, 1.3)
    return FliteVoice(name=name, stretch=stretch, pitch_hz=rng.uniform(85, 140) if name == "kal16" else None)


def _festival(rng: random.Random) -> FestivalVoice:
    return FestivalVoice(name=rng.choice(FESTIVAL_VOICES), stretch=rng.uniform(0.85, 1.3))


def _unseen_espeak(rng: random.Random) -> EspeakVoice:
    return EspeakVoice(name="en-us+Alicia", words_per_minute=rng.randint(125, 185))


def _unseen_flite(rng: random.Random) -> FliteVoice:
    return FliteVoice(name="rms", stretch=rng.uniform(0.9, 1.2))


_VOICES: dict[str, Callable[[random.Random], Voice]] = {
    "espeak": _espeak,
    "flite": _flite,
    "festival": _festival,
    "unseen espeak": _unseen_espeak,
    "unseen flite": _unseen_flite,
}


@dataclass(frozen=True, kw_only=True)
class Recording:
    """One clip of a corpus: samples `[offset, offset + length)` of its .npy file."""

    group: str
    voice: str
    text: str
    offset: int
    length: int
    word_starts: list[tuple[str, float]]
    """Start of each word in seconds; empty if the synthesiser gives no times."""


def record(takes: Sequence[Take], corpus: Path) -> float:
    """Say every take and write the corpus; returns its hours. A take that the synthesiser refuses is left out."""
    clips, recordings, offset = [], [], 0
    for take, clip, word_starts in _spoken(takes):
        recordings.append(
            Recording(
                group=take.group, voice=take.voice.name, text=take.text,
                offset=offset, length=len(clip), word_starts=word_starts,
            )
        )  # fmt: skip
        clips.append(clip)
        offset += len(clip)
    np.save(corpus.with_suffix(".npy"), np.concatenate(clips))
    corpus.with_suffix(".jsonl").write_text("".join(json.dumps(asdict(recording)) + "\n" for recording in recordings))
    return offset / SAMPLE_RATE_HZ / 3600


def _spoken(takes: Sequence[Take]) -> Iterator[tuple[Take, NDArray[np.int16], list[tuple[str, float]]]]:
    synthesiser = Synthesiser()
    for take in takes:
        try:
            clip = synthesiser.say(take.text, take.voice)
        except CalledProcessError as error:  # festival dies on a few texts
            print("left out:", take, error)
            continue
        yield take, np.clip(clip.samples * 32767, -32768, 32767).astype(np.int16), list(clip.word_starts)


def main() -> None:
    """Write one corpus."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path, help=f"a path whose name is one of {', '.join(RECIPES)}")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="make only every Nth take")
    arguments = parser.parse_args()
    takes = plan(RECIPES[arguments.corpus.name])[:: arguments.every]
    print(f"{arguments.corpus}: {record(takes, arguments.corpus):.2f} hours")


if __name__ == "__main__":
    main()
