import json

from schemas.speech import Word
from tests.support.jobs.messages import TEN_O_CLOCK
from worker.app.page.bucket import read_transcript
from worker.core.transcript.artefacts import ArtefactInfo, paragraphs_of, transcript_json

INFO = ArtefactInfo(
    request_id="r",
    audio_sha256="0" * 64,
    created_at=TEN_O_CLOCK,
    duration_seconds=12.0,
    model_name="m",
    model_version="1",
)


def test_an_artefact_is_read_back_as_paragraphs_of_timed_words() -> None:
    words = [
        Word(text="Hello.", start_seconds=0.5, end_seconds=0.9, confidence=0.98),
        Word(text="Later.", start_seconds=8.0, end_seconds=8.4, confidence=0.42),
    ]

    transcript = read_transcript(json.loads(transcript_json([(words, paragraphs_of(words))], INFO)))

    assert transcript is not None
    assert transcript.duration_seconds == 12.0
    assert [[word.text for word in paragraph.words] for paragraph in transcript.paragraphs] == [["Hello."], ["Later."]]
    assert transcript.paragraphs[1].words[0].confidence == 0.42
    assert transcript.paragraphs[0].channel is None


def test_paragraphs_of_several_channels_come_by_their_start_with_their_channel() -> None:
    left, right = (
        [Word(text=text, start_seconds=at, end_seconds=at + 0.4, confidence=0.9) for at, text in said]
        for said in (((0.5, "Question?"), (6.0, "Thanks.")), ((2.0, "Answer."),))
    )

    transcript = read_transcript(
        json.loads(transcript_json([(left, paragraphs_of(left)), (right, paragraphs_of(right))], INFO))
    )

    assert transcript is not None
    assert [(one.channel, one.words[0].text) for one in transcript.paragraphs] == [
        (1, "Question?"),
        (2, "Answer."),
        (1, "Thanks."),
    ]


def test_a_document_of_another_shape_is_no_transcript() -> None:
    assert read_transcript({"results": {}}) is None
    assert read_transcript({"metadata": {"duration": 1}, "results": {"channels": []}}) is None
