"""Writes the JSON Schema files of schemas/json from the models: `python -m schemas.generate`.

The schemas describe the messages that publishers should send and that readers may rely on. The worker itself takes
`null` for a field that was left out, and limits sizes, which JSON Schema cannot express.
"""

import json
from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel

from schemas.dead_letter import DeadLetter
from schemas.events import CompletedEvent, CostEvent, FailedEvent, ProgressEvent
from schemas.job import TranscriptionJob

FOLDER = Path(__file__).parent / "json"


def schema_files() -> Mapping[str, str]:
    """Return the content of every schema file by file name."""
    models: dict[str, type[BaseModel]] = {
        "transcription_job": TranscriptionJob,
        "transcription_completed": CompletedEvent,
        "transcription_failed": FailedEvent,
        "transcription_cost": CostEvent,
        "transcription_progress": ProgressEvent,
        "dead_letter": DeadLetter,
    }
    return {f"{name}.schema.json": _schema(model) for name, model in models.items()}


def _schema(model: type[BaseModel]) -> str:
    document = {"$schema": "https://json-schema.org/draft/2020-12/schema", **model.model_json_schema()}
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def main() -> None:
    """Write every schema file."""
    FOLDER.mkdir(exist_ok=True)
    for name, content in schema_files().items():
        (FOLDER / name).write_text(content, encoding="utf-8")


if __name__ == "__main__":
    main()
