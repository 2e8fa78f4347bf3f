"""A corpus as the pipeline's audio: CORPUS.npy through 8 kHz mono MP3 at 32 kbit/s and back.

python narrow_band.py CORPUS...        writes CORPUS_8k.npy beside CORPUS.npy, sample for sample in step with it
"""

import argparse
import subprocess
import tempfile
from pathlib import Path

import imageio_ffmpeg
import numpy as np
from voices import SAMPLE_RATE_HZ

_PCM = ("-f", "s16le", "-ar", str(SAMPLE_RATE_HZ), "-ac", "1")


def narrow_band_file(corpus: Path) -> Path:
    """Return the path of a corpus' narrow-band twin."""
    return corpus.with_name(f"{corpus.name}_8k.npy")


def write(corpus: Path) -> None:
    """Write the twin. The header of an MP3 file, unlike a pipe, states its delay, which ffmpeg removes again."""
    samples = np.load(corpus.with_suffix(".npy"))
    with tempfile.TemporaryDirectory() as folder:
        coded = str(Path(folder, "coded.mp3"))
        _ffmpeg(samples.tobytes(), *_PCM, "-i", "-", "-ar", "8000", "-b:a", "32k", coded)
        decoded = np.frombuffer(_ffmpeg(b"", "-i", coded, *_PCM, "-"), dtype=np.int16)[: len(samples)]
    np.save(narrow_band_file(corpus), np.pad(decoded, (0, len(samples) - len(decoded))))


def _ffmpeg(data: bytes, *arguments: str) -> bytes:
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-hide_banner", "-loglevel", "error", *arguments]
    return subprocess.run(command, input=data, stdout=subprocess.PIPE, check=True).stdout


def main() -> None:
    """Write the twins of some corpora."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path, nargs="+")
    for corpus in parser.parse_args().corpus:
        write(corpus)


if __name__ == "__main__":
    main()
