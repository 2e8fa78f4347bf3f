"""The worker's own recording of known speech, for the self-test, `check` and `validate`.

speech.mp3 is 21.5 s of four synthetic voices as the pipeline encodes speech: 8 kHz mono MP3, 32 kbit/s. It is the
beginning of the conversation four-voices.mp3 of `worker.embedded`, its frames copied:

    ffmpeg -i four-voices.mp3 -t 21.4 -c copy -bitexact speech.mp3
"""

from pathlib import Path

SPEECH = Path(__file__).with_name("speech.mp3")
MEDIA_TYPE = "audio/mpeg"
TEXT = (
    "What is your number? Anna will take the old car tomorrow. "
    "Close three black box for Maria. Please find the white book. "
    "The market is three five east of the city. Turn on the light in the school now. "
    "David will open the good phone today. "
    "Find ten yellow ticket for Helen."
)
"""The words of `SPEECH`, with case and punctuation."""
