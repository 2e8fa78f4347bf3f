"""The sample audio of the repository: new texts, in voices that were not in training.

    python samples.py demo FOLDER      three conversations in three formats, each with its transcript as JSON
    python samples.py bank FOLDER      single utterances, one file a voice, with an index as JSON
    python samples.py calibration FOLDER    20 minutes to fit confidences on, in other voices, with a manifest

Texts are drawn in one go and taken as they come; only those that the model has met are left out, and for `calibration`
those of the bank. Seeds keep the sets apart from each other and from the corpora.
"""

import argparse
import json
import random
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import cycle, islice
from pathlib import Path

import corpus
import grammar
import imageio_ffmpeg
import numpy as np
from numpy.typing import NDArray
from voices import SAMPLE_RATE_HZ, EspeakVoice, FliteVoice, Samples, Synthesiser, Voice

DEMO_SEED, BANK_SEED, CALIBRATION_SEED = 20_261_101, 20_261_102, 20_261_103
BANK_CLIPS_A_VOICE = 28
BANK_GAP_SECONDS = 0.25  # keeps a codec's smear of one clip out of the next
BANK_KBIT = 48
LONG_PAUSES = 0.1  # of all pauses in the demo

# Measured on 50 new utterances each: from the easiest third of all unseen voices (Andy) to the hardest (rms).
ESPEAK_VOICES = {
    "andy": "en-us+Andy",
    "jacky": "en-us+Jacky",
    "grandma": "en-us+grandma",
    "travis": "en-us+travis",
    "norbert": "en-us+norbert",
    "ricishay": "en-us+RicishayMax",
    "midlands": "en-gb-x-gbcwmd",
}
SPEAKERS = [*ESPEAK_VOICES, "rms"]
CALIBRATION_VOICES = [
    "benjamin", "boris", "caleb", "antonio", "Marco", "marcelo", "quincy", "max",
    "sandro", "victor", "steph2", "Hugo", "iven", "anika", "miguel", "rob",
]  # fmt: skip
CALIBRATION_CLIPS_A_VOICE = 24
BANK_INDEX = Path(__file__).parents[2] / "tests" / "data" / "speech" / "index.json"


@dataclass(frozen=True, kw_only=True)
class Utterance:
    """One utterance and its position in samples at 16 kHz; word starts in seconds from the start of the file."""

    text: str
    speaker: str
    start_sample: int
    end_sample: int
    word_starts: list[tuple[str, float]]


@dataclass(frozen=True, kw_only=True)
class Conversation:
    """A demo file: who speaks, for how long, and how ffmpeg is to write it."""

    file: str
    media_type: str
    speakers: tuple[str, ...]
    seconds: int
    encode: tuple[str, ...]


CONVERSATIONS = [
    Conversation(
        file="four-voices.mp3", media_type="audio/mpeg", speakers=("andy", "midlands", "grandma", "rms"),
        seconds=300, encode=("-ar", "8000", "-ac", "1", "-c:a", "libmp3lame", "-b:a", "32k"),
    ),
    Conversation(
        file="three-voices.m4a", media_type="audio/mp4", speakers=("jacky", "norbert", "travis"),
        seconds=240, encode=("-c:a", "aac", "-b:a", "48k"),
    ),
    Conversation(
        file="two-voices.opus", media_type="audio/ogg", speakers=("ricishay", "andy"),
        seconds=180, encode=("-c:a", "libopus", "-b:a", "48k"),
    ),
]  # fmt: skip


def voice_of(speaker: str, rng: random.Random) -> Voice:
    """Return the speaker's voice at a random speed."""
    if speaker == "rms":
        return FliteVoice(name="rms", stretch=rng.uniform(0.9, 1.2))
    return EspeakVoice(name=ESPEAK_VOICES.get(speaker, f"en-us+{speaker}"), words_per_minute=rng.randint(125, 185))


def new_texts(rng: random.Random) -> Iterator[str]:
    """Texts of the grammar that the model has not met, each once."""
    met = set(corpus.known_texts())
    while True:
        text = grammar.utterance(rng)
        if text not in met:
            met.add(text)
            yield text


class Tape:
    """Utterances one after the other, with the pauses asked for."""

    def __init__(self, synthesiser: Synthesiser) -> None:
        self.utterances: list[Utterance] = []
        self._synthesiser = synthesiser
        self._pieces: list[Samples] = []
        self._length = 0

    @property
    def seconds(self) -> float:
        """Length of the tape so far."""
        return self._length / SAMPLE_RATE_HZ

    def pause(self, seconds: float) -> None:
        """Append silence."""
        self._add(np.zeros(round(seconds * SAMPLE_RATE_HZ), dtype=np.float32))

    def say(self, text: str, speaker: str, rng: random.Random) -> None:
        """One utterance of that speaker."""
        clip = self._synthesiser.say(text, voice_of(speaker, rng))
        utterance = Utterance(
            text=text, speaker=speaker, start_sample=self._length, end_sample=self._length + len(clip.samples),
            word_starts=[(word, round(self.seconds + start, 3)) for word, start in clip.word_starts],
        )  # fmt: skip
        self.utterances.append(utterance)
        self._add(clip.samples)

    def pcm(self, noise: float = 0.0, seed: int = 0) -> NDArray[np.int16]:
        """Everything so far over white noise of that root mean square, at 0.9 of full scale."""
        joined = np.concatenate(self._pieces)
        joined += noise * np.random.default_rng(seed).standard_normal(len(joined), dtype=np.float32)
        pcm: NDArray[np.int16] = np.clip(joined * 0.9 * 32767, -32768, 32767).astype(np.int16)
        return pcm

    def _add(self, samples: Samples) -> None:
        self._pieces.append(samples)
        self._length += len(samples)


def encode(pcm: NDArray[np.int16], path: Path, options: Sequence[str]) -> None:
    """Write samples at 16 kHz as the file that ffmpeg's options describe."""
    source = ["-f", "s16le", "-ar", str(SAMPLE_RATE_HZ), "-ac", "1", "-i", "-"]
    quiet = ["-hide_banner", "-loglevel", "error", "-y"]
    command = [imageio_ffmpeg.get_ffmpeg_exe(), *quiet, *source, "-bitexact", *options, str(path)]
    subprocess.run(command, input=pcm.tobytes(), check=True)


def write_demo(folder: Path) -> None:
    """Three conversations of several minutes, with pauses to think and a little room noise."""
    rng, synthesiser = random.Random(DEMO_SEED), Synthesiser()
    texts = new_texts(rng)
    for conversation in CONVERSATIONS:
        tape = Tape(synthesiser)
        tape.pause(0.6)
        while tape.seconds < conversation.seconds:
            tape.say(next(texts), rng.choice(conversation.speakers), rng)
            tape.pause(rng.uniform(3, 8) if rng.random() < LONG_PAUSES else rng.uniform(0.3, 1.4))
        encode(tape.pcm(noise=0.001), folder / conversation.file, conversation.encode)
        described = {
            "file": conversation.file,
            "media_type": conversation.media_type,
            "seconds": round(tape.seconds, 3),
        }
        _write_index((folder / conversation.file).with_suffix(".json"), described, tape.utterances)


def write_bank(folder: Path) -> None:
    """Return the same number of utterances from every speaker."""
    rng, synthesiser = random.Random(BANK_SEED), Synthesiser()
    tapes = {speaker: Tape(synthesiser) for speaker in SPEAKERS}
    count = BANK_CLIPS_A_VOICE * len(SPEAKERS)
    for text, speaker in zip(islice(new_texts(rng), count), cycle(SPEAKERS), strict=False):
        tapes[speaker].say(text, speaker, rng)
        tapes[speaker].pause(BANK_GAP_SECONDS)
    for speaker, tape in tapes.items():
        encode(tape.pcm(), folder / f"{speaker}.opus", ("-c:a", "libopus", "-b:a", f"{BANK_KBIT}k"))
    utterances = [utterance for tape in tapes.values() for utterance in tape.utterances]
    _write_index(folder / "index.json", {"files": {speaker: f"{speaker}.opus" for speaker in tapes}}, utterances)


def write_calibration(folder: Path) -> None:
    """Write speech in voices and of texts that neither the model nor the tests have, in random turns."""
    rng, tape = random.Random(CALIBRATION_SEED), Tape(Synthesiser())
    tested = {utterance["text"] for utterance in json.loads(BANK_INDEX.read_text())["utterances"]}
    speakers = CALIBRATION_VOICES * CALIBRATION_CLIPS_A_VOICE
    rng.shuffle(speakers)
    texts = (text for text in new_texts(rng) if text not in tested)
    for text, speaker in zip(texts, speakers, strict=False):
        tape.pause(rng.uniform(0.3, 2.5))
        tape.say(text, speaker, rng)
    encode(tape.pcm(), folder / "calibration.wav", ())
    line = {"audio_filepath": "calibration.wav", "text": " ".join(one.text for one in tape.utterances)}
    (folder / "manifest.jsonl").write_text(json.dumps(line) + "\n")


def _write_index(path: Path, described: dict[str, object], utterances: Sequence[Utterance]) -> None:
    """JSON with one line an utterance: a tenth of the lines that indentation makes."""
    head = json.dumps(described)[:-1]
    rows = ",\n".join(json.dumps(asdict(utterance)) for utterance in utterances)
    path.write_text(f'{head}, "utterances": [\n{rows}\n]}}\n')


def main() -> None:
    """Write one of the sets."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sets: dict[str, Callable[[Path], None]] = {"demo": write_demo, "bank": write_bank, "calibration": write_calibration}
    parser.add_argument("set", choices=sets)
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    sets[arguments.set](arguments.folder)
    sys.stdout.write(f"{arguments.set} written to {arguments.folder}\n")


if __name__ == "__main__":
    main()
