"""The team of a job, on its way to the engine."""

from pathlib import Path
from typing import Any

import pytest

from schemas.job import TranscriptionJob
from tests.support.jobs.harness import JobsRoom, OnlySlot, speech
from worker.adapters.memory.recogniser import MemoryRecogniser
from worker.ports import Pcm, Recognition


class Teams(MemoryRecogniser):
    """Remembers the team of each window."""

    def __init__(self) -> None:
        super().__init__()
        self.teams: set[str] = set()

    async def recognise(
        self, samples: Pcm, job_id: str, *, keyterms: tuple[str, ...] = (), team_id: str = ""
    ) -> Recognition:
        self.teams.add(team_id)
        return await super().recognise(samples, job_id, keyterms=keyterms, team_id=team_id)


@pytest.mark.parametrize(("fields", "team"), [({"team_id": "blue"}, "blue"), ({}, "")])
async def test_every_window_carries_the_team_of_its_job(tmp_path: Path, fields: dict[str, Any], team: str) -> None:
    recogniser = Teams()
    room = JobsRoom(tmp_path, recogniser=recogniser)
    await room.upload(speech(65))

    await room.attempt(**fields).handle(OnlySlot())

    assert recogniser.teams == {team}


@pytest.mark.parametrize(
    ("team_id", "team"), [(None, ""), ("blue", "blue"), (7, "7"), ({"b": 1, "a": [None]}, '{"a": [null], "b": 1}')]
)
def test_a_team_of_any_type_is_text(team_id: Any, team: str) -> None:
    job = TranscriptionJob.model_validate(
        {"job_id": "j", "video_id": "v", "audio_uri": "gs://audio/a.mp3", "team_id": team_id}
    )

    assert job.team == team
