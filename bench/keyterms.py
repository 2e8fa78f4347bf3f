"""Keyterms by weight: names found and invented, other words, one-letter terms, and what a hundred terms cost.

Speech of the tiny model's grammar by voices that it has not met, in windows of six sentences with white noise below it.
A window's keyterms are the names spoken in it; then all names of the grammar; then a hundred others; then the alphabet.
"""

import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Annotated

import numpy as np
import torch
import typer

from bench.machine import this_machine
from bench.options import JsonFlag, Repeats, Write
from bench.outcome import deliver, telling
from bench.report import BenchReport, BenchVerdict, Grid, median
from examples.tiny_model.grammar import DAYS
from examples.tiny_model.grammar import NAMES as PERSONS
from tests.support.audio.speech_bank import bank
from tests.support.engines.network import tiny_transcriber
from worker.adapters.parakeet.network.boosting import window_terms
from worker.adapters.parakeet.network.transcriber import Encoded
from worker.core.transcript.spelling import compared_words
from worker.core.transcript.word_errors import KeytermScore, WordErrors, keyterm_score, word_errors
from worker.ports import SAMPLE_RATE_HZ, Pcm
from worker.settings import EngineSettings

NAMES = (*PERSONS, *DAYS)
WEIGHTS = (0.0, 1.0, 2.0, 2.5, 3.0, 3.5, 4.0, 5.0)
ALPHABET = tuple("abcdefghijklmnopqrstuvwxyz")
STRANGERS = tuple(
    f"{first}{last}"
    for first in ("Marvin", "Theodore", "Winston", "Leopold", "Oscar", "Trevor", "Cynthia", "Gordon", "Felix", "Naomi")
    for last in ("", "son", " Winter", " Ostrom", " Gale", " Peterson", " McCall", " Delgado", " Fox", " of Rome")
)
"""A hundred, of the letters that the tiny model's pieces have; some begin as its own words do."""
MOST_MISSED, MOST_INVENTED_PERCENT, MOST_COST = 2 / 3, 0.1, 1.03
FRAME_SAMPLES = 1_280
SENTENCES = 6


@dataclass(frozen=True, kw_only=True)
class Spoken:
    """A window and its words."""

    samples: Pcm
    words: list[str]

    @property
    def names(self) -> tuple[str, ...]:
        """The names that are spoken in it."""
        return tuple(name for name in NAMES if name.lower() in self.words)


@dataclass(kw_only=True)
class NameScore:
    """Sums over all windows."""

    terms: KeytermScore = field(default_factory=KeytermScore)
    every: WordErrors = field(default_factory=lambda: WordErrors(errors=0, words=0))
    others: WordErrors = field(default_factory=lambda: WordErrors(errors=0, words=0))
    """Words that are no name."""

    def add(self, said: list[str], written: list[str], terms: Sequence[str]) -> None:
        """Count one window."""
        self.terms += keyterm_score(terms, said, written)
        self.every += word_errors(said, written)
        self.others += word_errors(_without_names(said), _without_names(written))

    @property
    def missed(self) -> int:
        """Terms that are spoken and not written there."""
        return self.terms.spoken - self.terms.matched

    @property
    def invented_percent(self) -> float:
        """Terms that are written and not spoken there, of all words spoken."""
        return 100 * (self.terms.written - self.terms.matched) / self.every.words


def keyterms(decibels: float, seeds: int, repeats: int) -> BenchReport:
    """Measure every weight on the same speech, and the cost of a hundred terms in turns."""
    with telling() as say:
        say("making speech")
        windows = [window for seed in range(seeds) for window in _windows(seed, decibels)]
        encoder = tiny_transcriber()
        encoded = encoder.encode([window.samples for window in windows])
        by_weight = {}
        for weight in WEIGHTS:
            say(f"weight {weight:g}")
            by_weight[weight] = _scores(windows, encoded, weight)
        ratios = _costs(windows[:32], repeats, say)
    return _report(decibels, seeds, repeats, by_weight, ratios)


def _windows(seed: int, decibels: float) -> Iterator[Spoken]:
    """Yield every sentence of the speech bank once, those of a voice in random order."""
    rng, noise = random.Random(seed), np.random.default_rng(seed)
    for speaker in sorted({clip.utterance.speaker for clip in bank()}):
        clips = [clip for clip in bank() if clip.utterance.speaker == speaker]
        left = iter(rng.sample(clips, len(clips)))
        while some := list(islice(left, SENTENCES)):
            pauses = [np.zeros(round(rng.uniform(0.3, 1.0) * SAMPLE_RATE_HZ), np.int16) for _ in some]
            speech = np.concatenate([clip.samples for clip in some]).astype(np.float64)
            level = np.sqrt(np.mean(speech**2) / 10 ** (decibels / 10))
            samples = np.concatenate(
                [part for pair in zip(pauses, some, strict=True) for part in (pair[0], pair[1].samples)]
            )
            noisy = samples + noise.standard_normal(len(samples)) * level
            text = " ".join(clip.utterance.text for clip in some)
            yield Spoken(samples=np.clip(noisy, -32768, 32767).astype(np.int16), words=compared_words(text))


def _scores(windows: Sequence[Spoken], encoded: Encoded, weight: float) -> tuple[NameScore, ...]:
    """Return the scores with each window's own names, with all ten, with strangers, and with the alphabet."""
    decoder = tiny_transcriber(keyterm_weight=weight)
    scores = []
    for terms_of in (lambda window: window.names, lambda _: NAMES, lambda _: STRANGERS, lambda _: ALPHABET):
        lists = [terms_of(window) for window in windows]
        terms = window_terms([window.samples for window in windows], lists, FRAME_SAMPLES)
        (found,) = decoder.decode([replace(encoded, terms=terms)])
        score = NameScore()
        for window, words, own in zip(windows, found, lists, strict=True):
            score.add(window.words, compared_words(" ".join(word.text for word in words)), own)
        scores.append(score)
    return tuple(scores)


def _costs(windows: Sequence[Spoken], repeats: int, say: Callable[[str], None]) -> list[float]:
    """Return processor time with a hundred terms over that without, turn by turn."""
    network, samples = tiny_transcriber(), [window.samples for window in windows]
    lists = {"without": (), "with": [STRANGERS] * len(samples)}
    ratios = []
    for number in range(repeats + 1):
        say(f"cost, turn {number} of {repeats}")
        seconds = {}
        for name, terms in lists.items():
            began = time.process_time()
            network.decode([network.encode(samples, terms)])
            seconds[name] = time.process_time() - began
        if number:  # the first turn builds what later windows of a job find
            ratios.append(seconds["with"] / seconds["without"])
    return ratios


def _report(
    decibels: float,
    seeds: int,
    repeats: int,
    by_weight: dict[float, tuple[NameScore, ...]],
    ratios: list[float],
) -> BenchReport:
    default = EngineSettings().keyterm_weight
    (plain, *_), (own, _, strangers, _) = by_weight[0.0], by_weight[default]
    return BenchReport(
        key="keyterms",
        title="Keyterms",
        command=f"python -m bench.keyterms --decibels {decibels:g} --seeds {seeds} --repeats {repeats}",
        machine=this_machine(),
        grids=(_grid(by_weight),),
        figures={"ratios": ratios, "by_weight": {f"{weight:g}": _figures(*of) for weight, of in by_weight.items()}},
        verdicts=(
            BenchVerdict(
                claim=f"names missed with weight {default:g}, of those missed without",
                measured=own.missed / plain.missed,
                must_be="at most",
                limit=MOST_MISSED,
            ),
            BenchVerdict(
                claim="strangers invented, % of words",
                measured=strangers.invented_percent,
                must_be="at most",
                limit=MOST_INVENTED_PERCENT,
            ),
            BenchVerdict(
                claim="errors in all words with their names as keyterms, of those without",
                measured=own.every.errors / plain.every.errors,
                must_be="at most",
                limit=1.0,
            ),
            BenchVerdict(
                claim="the engine's processor time with a hundred terms, over that without",
                measured=median(ratios),
                must_be="at most",
                limit=MOST_COST,
            ),
        ),
        notes=(
            (
                f"{plain.every.words:,} words of the tiny model's grammar by voices that it has not met, "
                f"{plain.terms.spoken} of them names, white noise {decibels:g} dB below the speech. A window's "
                "keyterms are the names that are spoken in it; then all ten names of the grammar, which it confuses "
                "with each other; then a hundred names that are not spoken (strangers); then the letters of the "
                "alphabet."
            ),
        ),
    )


def _figures(*scores: NameScore) -> list[dict[str, int]]:
    """Return the counts with own names, with all names, with strangers and with letters."""
    return [
        {
            "spoken": one.terms.spoken,
            "written": one.terms.written,
            "matched": one.terms.matched,
            "words": one.every.words,
            "errors": one.every.errors,
            "other_words": one.others.words,
            "other_errors": one.others.errors,
        }
        for one in scores
    ]


def _grid(by_weight: dict[float, tuple[NameScore, ...]]) -> Grid:
    rows = []
    for weight, (own, all_names, strangers, letters) in by_weight.items():
        rows.append(
            (
                f"{weight:g}",
                *(str(own.missed), f"{own.terms.recall_percent:.1f}", f"{own.every.percent:.2f}"),
                f"{own.others.percent:.2f}",
                *(str(all_names.missed), f"{all_names.others.percent:.2f}"),
                *(str(strangers.terms.written), f"{strangers.others.percent:.2f}"),
                *(str(letters.terms.written), f"{letters.others.percent:.2f}"),
            )
        )
    columns = (
        *("weight", "names missed", "recall, %", "WER, %", "WER of other words, %"),
        *("names missed with all ten", "WER of other words, %"),
        *("strangers written", "WER of other words, %", "letters written", "WER of other words, %"),
    )
    return Grid(title="By weight", columns=columns, rows=tuple(rows))


def _without_names(words: Sequence[str]) -> list[str]:
    return [word for word in words if word.capitalize() not in NAMES]


def main(
    decibels: Annotated[float, typer.Option(help="level of the speech over that of the noise")] = 10.0,
    seeds: Annotated[int, typer.Option(help="times that every sentence is spoken, each with other noise", min=1)] = 8,
    repeats: Repeats = 5,
    as_json: JsonFlag = False,
    write: Write = None,
) -> None:
    """Measure keyterms by weight. Exit 1 unless the promises were kept."""
    torch.set_num_threads(1)
    deliver(keyterms(decibels, seeds, repeats), as_json=as_json, write=write)


if __name__ == "__main__":
    typer.run(main)
