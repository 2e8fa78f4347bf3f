"""Gates that detect bad transcripts. Pure and conservative: a false alarm costs a second decode, then money."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from statistics import fmean

from schemas.speech import WindowSpan, WindowTranscript, Word
from worker.core.transcript.cutting import WindowRules
from worker.core.transcript.loudness import FRAME_SAMPLES, FRAMES_PER_SECOND, SAMPLE_RATE_HZ, FrameFlags, Pcm
from worker.core.transcript.planning import Chunk, recut
from worker.core.transcript.spelling import is_spoken, raw_word
from worker.core.transcript.voicing import talking_seconds


class Gate(StrEnum):
    """A reason to distrust a window's words."""

    NO_TEXT = "no_text"
    """There is speech in the window and no word."""
    GAP = "gap"
    """There is speech without words between two words, before the first or after the last."""
    WORD_RATE = "word_rate"
    """More words than can be spoken in the time, or far fewer than the speech must contain."""
    REPETITION = "repetition"
    """One word or phrase is repeated many times, or a few times on silence: a keyterm in a loop, for example."""
    LOW_CONFIDENCE = "low_confidence"
    """The engine's own confidences are low."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GateRules:
    """Thresholds of the gates, well beyond real speech and well within what a failed decoder produces."""

    # Voiced, gliding seconds: two are about ten syllables; and music strays into them for under 7 % of its time.
    talking_seconds: float = 2.0
    talking_share: float = 0.15
    # Ten words fit in 4 s; a thoughtful pause with a cough in it does not reach the two limits above.
    gap_seconds: float = 4.0
    # Auctioneers and rap reach 6 words a second of sound; conversation has 2 to 4.
    most_words_per_second: float = 8.0
    # Slow dictation has 1 word a second of sound; talking_seconds distinguishes music and games, which are sound too.
    least_words_per_second: float = 0.5
    # Below these a rate or a mean is not significant.
    least_words: int = 8
    least_sound_seconds: float = 10.0
    # "No no no no no", "let's go" five times are normal on a stream; a stuck decoder fills the window.
    repeated_words: int = 12
    repeats: int = 4
    longest_phrase_words: int = 8
    # Times are off by 0.2 s at most, so no two spoken words in a row lie on silence.
    repeats_on_silence: int = 3
    # Calibrated, this means that half of the words are wrong: windows with 7 of 10 words right stayed above 0.65, those
    # with fewer came down to 0.51 (docs/measured.md). Not calibrated, even wrong words hardly come down to it.
    least_mean_confidence: float = 0.5


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Evidence:
    """A window's words beside its audio."""

    words: Sequence[Word]
    samples: Pcm
    active: FrameFlags
    rules: GateRules

    @property
    def seconds(self) -> float:
        return len(self.samples) / SAMPLE_RATE_HZ

    @property
    def sound_seconds(self) -> float:
        return int(self.active.sum()) / FRAMES_PER_SECOND

    def is_silent(self, word: Word) -> bool:
        """Return True where the word's whole time is silence."""
        first, last = (int(seconds * FRAMES_PER_SECOND) for seconds in (word.start_seconds, word.end_seconds))
        return not self.active[first : last + 1].any()

    def talks(self, start_seconds: float, end_seconds: float) -> bool:
        """Return True where a substantial share of that part of the window is speech."""
        part = self.samples[int(start_seconds * SAMPLE_RATE_HZ) : int(end_seconds * SAMPLE_RATE_HZ)]
        enough = max(self.rules.talking_seconds, self.rules.talking_share * (end_seconds - start_seconds))
        return end_seconds - start_seconds >= enough and talking_seconds(part) >= enough


def failed_gates(chunk: Chunk, window: WindowTranscript, rules: GateRules | None = None) -> tuple[Gate, ...]:
    """Return the gates that a window of the chunk fails, in the order of `Gate`; empty for a good window."""
    first = max(0, (window.span.start_sample - chunk.start_sample) // FRAME_SAMPLES)
    last = (window.span.end_sample - chunk.start_sample) // FRAME_SAMPLES
    evidence = _Evidence(
        words=sorted((word for word in window.words if is_spoken(word.text)), key=lambda word: word.start_seconds),
        samples=chunk.samples_of(window.span),
        active=chunk.active[first:last],
        rules=rules or GateRules(),
    )
    checks = {
        Gate.NO_TEXT: _no_text,
        Gate.GAP: _gap,
        Gate.WORD_RATE: _word_rate,
        Gate.REPETITION: _repetition,
        Gate.LOW_CONFIDENCE: _low_confidence,
    }
    return tuple(gate for gate, fires in checks.items() if fires(evidence))


def other_cuts(chunk: Chunk) -> tuple[WindowSpan, ...]:
    """Cut the chunk into windows of at most 20 s: other context for each word, and less to go wrong in each window."""
    return recut(chunk, WindowRules(longest_frames=20 * FRAMES_PER_SECOND, ample_frames=10 * FRAMES_PER_SECOND))


def _no_text(evidence: _Evidence) -> bool:
    return not evidence.words and evidence.talks(0, evidence.seconds)


def _gap(evidence: _Evidence) -> bool:
    return any(evidence.talks(start, end) for start, end in _gaps(evidence))


def _gaps(evidence: _Evidence) -> Iterator[tuple[float, float]]:
    """Yield long stretches without words, in seconds of a window that has words."""
    if not evidence.words:
        return
    clock = [
        0.0,
        *(time for word in evidence.words for time in (word.start_seconds, word.end_seconds)),
        evidence.seconds,
    ]
    spoken_to = 0.0
    for end, start in zip(clock[0::2], clock[1::2], strict=True):
        spoken_to = max(spoken_to, end)
        if start - spoken_to >= evidence.rules.gap_seconds:
            yield spoken_to, start


def _word_rate(evidence: _Evidence) -> bool:
    count, seconds, rules = len(evidence.words), evidence.sound_seconds, evidence.rules
    if count >= rules.least_words and count > rules.most_words_per_second * max(seconds, 1.0):
        return True
    is_scant = 0 < count < rules.least_words_per_second * seconds and seconds >= rules.least_sound_seconds
    return is_scant and evidence.talks(0, evidence.seconds)


def _repetition(evidence: _Evidence) -> bool:
    tokens = [raw_word(word.text) for word in evidence.words]
    # A word with sound gets a name of its own, which repeats nothing.
    silent = [
        token if evidence.is_silent(word) else f"{token} {place}"
        for place, (token, word) in enumerate(zip(tokens, evidence.words, strict=True))
    ]
    rules = evidence.rules
    return any(
        _longest_run_of_phrase(tokens, size) >= max(rules.repeated_words, rules.repeats * size)
        or _longest_run_of_phrase(silent, size) >= rules.repeats_on_silence * size
        for size in range(1, rules.longest_phrase_words + 1)
    )


def _longest_run_of_phrase(tokens: Sequence[str], size: int) -> int:
    """Return the length in words of the longest run of repeats of a phrase of `size` words."""
    longest = run = 0
    for token, later in zip(tokens, tokens[size:], strict=False):
        run = run + 1 if token == later else 0
        longest = max(longest, run)
    return longest + size if longest else 0


def _low_confidence(evidence: _Evidence) -> bool:
    if len(evidence.words) < evidence.rules.least_words:
        return False
    return fmean(word.confidence for word in evidence.words) < evidence.rules.least_mean_confidence
