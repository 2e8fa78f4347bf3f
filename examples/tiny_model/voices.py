"""Speech synthesis at 16 kHz: espeak-ng through its C library (which gives word starts), flite, festival.

Needs the programs of README.md. espeak-ng keeps global state: one `Synthesiser` a process.
"""

import ctypes
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, assert_never

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

SAMPLE_RATE_HZ = 16_000

Samples: TypeAlias = NDArray[np.float32]
WordStart: TypeAlias = tuple[str, float]
"""A word as written without punctuation, and the second at which it starts."""


@dataclass(frozen=True, kw_only=True)
class EspeakVoice:
    """`name` is an accent and a variant, as in `en-us+f2`; pitch and its range go from 0 to 99."""

    name: str
    words_per_minute: int
    pitch: int = 50
    pitch_range: int = 50
    gap_10ms: int = 0


@dataclass(frozen=True, kw_only=True)
class FliteVoice:
    """`stretch` above 1 is slower; `pitch_hz` None leaves the voice's own."""

    name: str
    stretch: float
    pitch_hz: float | None = None


@dataclass(frozen=True, kw_only=True)
class FestivalVoice:
    """`stretch` above 1 is slower."""

    name: str
    stretch: float


Voice: TypeAlias = EspeakVoice | FliteVoice | FestivalVoice


@dataclass(frozen=True)
class Clip:
    """A synthesiser's output; `word_starts` is empty if it gives no times."""

    samples: Samples
    word_starts: tuple[WordStart, ...] = ()


class Synthesiser:
    """Says texts with any voice."""

    def __init__(self) -> None:
        self._espeak = _Espeak()

    def say(self, text: str, voice: Voice) -> Clip:
        """Block until `text` is spoken. Raises `CalledProcessError` or `ValueError` for a voice that is missing."""
        match voice:
            case EspeakVoice():
                return self._espeak.say(text, voice)
            case FliteVoice():
                return _flite(text, voice)
            case FestivalVoice():
                return _festival(text, voice)
            case _:
                assert_never(voice)


class _Event(ctypes.Structure):
    """`espeak_EVENT` of speak_lib.h."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position_ms", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", ctypes.c_char * 8),
    )


_SYNCHRONOUS, _CHARACTERS, _UTF8 = 2, 1, 1
_LIST_ENDS, _WORD = 0, 1
_RATE, _PITCH, _RANGE, _GAP = 1, 3, 4, 7


class _Espeak:
    def __init__(self) -> None:
        self._library = ctypes.CDLL("libespeak-ng.so.1")
        self._rate_hz: int = self._library.espeak_Initialize(_SYNCHRONOUS, 0, None, 0)
        pointers = (ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))
        self._callback = ctypes.CFUNCTYPE(ctypes.c_int, *pointers)(self._take)  # espeak-ng keeps no reference to it
        self._library.espeak_SetSynthCallback(self._callback)
        self._blocks: list[NDArray[np.int16]] = []
        self._words: list[tuple[int, int, float]] = []

    def say(self, text: str, voice: EspeakVoice) -> Clip:
        self._blocks, self._words = [], []
        self._select(voice)
        data = text.encode()
        self._library.espeak_Synth(data, len(data) + 1, 0, _CHARACTERS, 0, _UTF8, None, None)
        self._library.espeak_Synchronize()
        samples = np.concatenate(self._blocks).astype(np.float32) / np.float32(32768)
        words = ((text[at : at + length].strip(), start) for at, length, start in self._words)
        return Clip(_at_16_khz(samples, self._rate_hz), tuple(word for word in words if word[0]))

    def _select(self, voice: EspeakVoice) -> None:
        if self._library.espeak_SetVoiceByName(voice.name.encode()) != 0:
            raise ValueError(voice.name)
        settings = ((_RATE, voice.words_per_minute), (_PITCH, voice.pitch), (_RANGE, voice.pitch_range))
        for parameter, value in (*settings, (_GAP, voice.gap_10ms)):
            self._library.espeak_SetParameter(parameter, value, 0)

    def _take(self, block: Any, count: int, events: Any) -> int:
        if block and count > 0:
            self._blocks.append(np.ctypeslib.as_array(block, (count,)).copy())
        index = 0
        while (event := events[index]).type != _LIST_ENDS:
            if event.type == _WORD:
                self._words.append((event.text_position - 1, event.length, event.audio_position_ms / 1000))
            index += 1
        return 0


def _flite(text: str, voice: FliteVoice) -> Clip:
    pitch = ["--setf", f"int_f0_target_mean={voice.pitch_hz:.0f}"] if voice.pitch_hz else []
    stretch = ["--setf", f"duration_stretch={voice.stretch:.2f}"]
    return _by_program(["flite", "-voice", voice.name, *stretch, *pitch, "-t", text, "-o"])


def _festival(text: str, voice: FestivalVoice) -> Clip:
    stretch = f"(Parameter.set 'Duration_Stretch {voice.stretch:.2f})"
    return _by_program(["text2wave", "-eval", f"(voice_{voice.name})", "-eval", stretch, "-o"], said=text)


def _by_program(command: list[str], said: str = "") -> Clip:
    with tempfile.TemporaryDirectory() as folder:
        wave = Path(folder, "clip.wav")
        subprocess.run([*command, str(wave)], input=said.encode(), check=True, stderr=subprocess.DEVNULL)
        samples, rate_hz = soundfile.read(wave, dtype="float32")
    return Clip(_at_16_khz(samples, rate_hz))


def _at_16_khz(samples: Samples, rate_hz: int) -> Samples:
    resampled: Samples = soxr.resample(samples, rate_hz, SAMPLE_RATE_HZ).astype(np.float32)
    return resampled
