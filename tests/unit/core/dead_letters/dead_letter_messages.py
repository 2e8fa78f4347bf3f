"""Messages of a dead-letter subscription."""

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from schemas.codes import ErrorCode
from schemas.dead_letter import DeadLetter, OriginalMessage, dead_letter_attributes, encode_dead_letter
from schemas.ids import dead_letter_id, job_identity
from schemas.job import parse_job
from tests.support.jobs.messages import job_document
from tests.support.queues.scripted_subscription import make_delivery
from worker.ports import Delivery

FAILED_AT = datetime(2026, 11, 22, 9, tzinfo=UTC)


def job_bytes(**changes: Any) -> bytes:
    return json.dumps(job_document(**changes)).encode()


def enveloped(
    name: str = "d1",
    *,
    run: int = 0,
    code: ErrorCode = ErrorCode.AUDIO_NOT_FOUND,
    data: bytes | None = None,
    attributes: Mapping[str, str] | None = None,
    unchecked: bool = False,
    failed_at: datetime = FAILED_AT,
    suggested_action: str | None = None,
) -> Delivery:
    """The worker's own dead letter of job vod-1, or of the job in `data`; `unchecked` data need not be one."""
    data = data or job_bytes()
    job, _ = parse_job(job_bytes() if unchecked else data)
    letter = DeadLetter(
        dead_letter_id=dead_letter_id(job_identity(job), run=run, code=code),
        run=run,
        code=code,
        message="no object at gs://audio-bucket/1.mp3",
        original=OriginalMessage.of(
            data,
            attributes
            if attributes is not None
            else {"run": str(run), "publisher": "pipeline", "CloudPubSubDeadLetterSourceDeliveryCount": "3"},
            message_id="original",
            publish_time=FAILED_AT,
            subscription="jobs-worker",
        ),
        attempts=1,
        crashes=0,
        first_seen=FAILED_AT,
        failed_at=failed_at,
        worker="w1",
        suggested_action=suggested_action,
    )
    told = dead_letter_attributes(letter, job.echo())
    return replace(make_delivery(name, data=encode_dead_letter(letter)), attributes=told)


def forwarded(name: str = "f1", *, data: bytes | None = None, **attributes: str) -> Delivery:
    """The same job as the subscription's policy forwards it, after 100 deliveries in nine hours."""
    added = {
        "CloudPubSubDeadLetterSourceDeliveryCount": "100",
        "CloudPubSubDeadLetterSourceSubscription": "jobs-worker",
        "CloudPubSubDeadLetterSourceTopicPublishTime": "2026-11-22T01:00:00.000Z",
    }
    delivery = make_delivery(name, data=data or job_bytes(), ordering_key="key")
    return replace(delivery, attributes={**added, **attributes})
