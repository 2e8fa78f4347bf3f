"""Gates on recorded speech: none fires on a thousand windows with the right words; they fire without them."""

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain

import pytest

from schemas.speech import WindowSpan, WindowTranscript, Word
from tests.support.audio.speech_bank import Utterance, build_long_file, decode
from worker.core.transcript.planning import Chunk, ChunkCutter, WindowRules, recut
from worker.core.transcript.quality import Gate, failed_gates
from worker.core.transcript.sound import FRAMES_PER_SECOND
from worker.ports import SAMPLE_RATE_HZ

SEED, SECONDS = 11, 2700
LONGEST_SECONDS = (30, 20, 12, 8)  # the worker's own windows, those of its second try, and shorter ones


@dataclass(frozen=True, eq=False)
class Window:
    chunk: Chunk
    transcript: WindowTranscript

    @property
    def seconds(self) -> float:
        return (self.transcript.span.end_sample - self.transcript.span.start_sample) / SAMPLE_RATE_HZ

    @property
    def talk_seconds(self) -> float:
        return sum(word.end_seconds - word.start_seconds for word in self.transcript.words)

    def gates(self, change: Callable[[Sequence[Word]], Sequence[Word]] = tuple) -> tuple[Gate, ...]:
        words = tuple(change(self.transcript.words))
        return failed_gates(self.chunk, replace(self.transcript, words=words))


@pytest.fixture(scope="module")
def windows(tmp_path_factory: pytest.TempPathFactory) -> Sequence[Window]:
    path = tmp_path_factory.mktemp("speech") / "long.wav"
    reference = build_long_file(SEED, SECONDS, path)
    cutter = ChunkCutter(60)
    chunks = [*cutter.push(decode(path)), *cutter.finish()]
    words = list(chain.from_iterable(map(said, reference.utterances)))
    return [
        Window(chunk, WindowTranscript(span, within(words, span))) for chunk in chunks for span in every_cut_of(chunk)
    ]


def said(utterance: Utterance) -> Iterator[Word]:
    """Return the spoken words, each until the next; spread evenly if the synthesiser gives no times."""
    texts = utterance.text.split()
    first, last = utterance.start_sample / SAMPLE_RATE_HZ, utterance.end_sample / SAMPLE_RATE_HZ
    step = (last - first) / len(texts)
    starts = utterance.word_starts or [first + i * step for i in range(len(texts))]
    for text, start, end in zip(texts, starts, [*starts[1:], last], strict=True):
        yield Word(text, start, end, 0.95)


def within(words: Sequence[Word], span: WindowSpan) -> tuple[Word, ...]:
    """The words that start in the window, on its own clock."""
    first, last = span.start_sample / SAMPLE_RATE_HZ, span.end_sample / SAMPLE_RATE_HZ
    low, high = (bisect_left(words, time, key=lambda word: word.start_seconds) for time in (first, last))
    return tuple(
        replace(word, start_seconds=word.start_seconds - first, end_seconds=min(word.end_seconds, last) - first)
        for word in words[low:high]
    )


def every_cut_of(chunk: Chunk) -> Iterator[WindowSpan]:
    for seconds in LONGEST_SECONDS:
        longest = seconds * FRAMES_PER_SECOND
        yield from recut(chunk, WindowRules(longest_frames=longest, ample_frames=longest * 2 // 3))


@pytest.mark.campaign
def test_a_thousand_good_windows_pass_every_gate(windows: Sequence[Window]) -> None:
    failed = [(window.transcript, gates) for window in windows if (gates := window.gates())]

    assert len(windows) >= 1000
    assert failed == []


def nothing(_: Sequence[Word]) -> Sequence[Word]:
    return ()


def first_half(words: Sequence[Word]) -> Sequence[Word]:
    return words[: len(words) // 2]


def stuck(words: Sequence[Word]) -> Sequence[Word]:
    return [replace(word, text="the") for word in words]


def babbled(words: Sequence[Word]) -> Sequence[Word]:
    return [replace(word, text=f"{word.text}{i}") for word in words for i in range(6)]


def disbelieved(words: Sequence[Word]) -> Sequence[Word]:
    return [replace(word, confidence=0.3) for word in words]


@pytest.mark.campaign
@pytest.mark.parametrize(
    ("spoil", "gate"),
    [
        (nothing, Gate.NO_TEXT),
        (first_half, Gate.GAP),
        (babbled, Gate.WORD_RATE),
        (stuck, Gate.REPETITION),
        (disbelieved, Gate.LOW_CONFIDENCE),
    ],
)
def test_the_same_windows_with_spoilt_words_fail(
    windows: Sequence[Window], spoil: Callable[[Sequence[Word]], Sequence[Word]], gate: Gate
) -> None:
    full = [window for window in windows if window.seconds > 15 and window.talk_seconds > 0.7 * window.seconds]

    caught = sum(gate in window.gates(spoil) for window in full)

    assert len(full) > 100
    assert caught >= 0.95 * len(full), f"{caught} of {len(full)}"
