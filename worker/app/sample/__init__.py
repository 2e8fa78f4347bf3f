r"""The worker's own recording of known speech, for the self-test, `check` and `validate`.

speech.opus is 21.4 s of four synthetic voices, the beginning of the conversation four-voices.mp3 of `worker.embedded`:

    ffmpeg -i four-voices.mp3 -t 21.4 -c:a libopus -b:a 6k -application voip -frame_duration 60 \
        -page_duration 30000000 -bitexact speech.opus

At this bit rate it costs the tiny model no words.
"""

from pathlib import Path

SPEECH = Path(__file__).with_name("speech.opus")
