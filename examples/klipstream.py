"""Transcribe a file as the pipeline does: `python examples/klipstream.py AUDIO VIDEO_ID [OUTPUT_DIR]`.

The call and its variables are described in `worker.client.pipeline`; docs/use/pipeline.md shows where it goes.
"""

import json
import sys

from worker.client.pipeline import ArtefactChanged, TranscriptionFailed, transcribe

if len(sys.argv) not in {3, 4}:
    sys.exit(f"usage: python {sys.argv[0]} AUDIO VIDEO_ID [OUTPUT_DIR]")
try:
    print(json.dumps(transcribe(*sys.argv[1:4]), indent=2, default=str))
except (ArtefactChanged, OSError, TranscriptionFailed, ValueError) as exc:  # a bad id or variable is a ValueError
    sys.exit(f"not transcribed: {exc}")
