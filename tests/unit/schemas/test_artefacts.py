from hypothesis import given, settings

from schemas.codes import Artefact
from schemas.job import TranscriptionJob
from schemas.uris import MAX_NAME_BYTES, GcsUri
from tests.support.jobs.messages import job_document, jobs


def test_artefacts_are_named_for_the_video() -> None:
    assert [artefact.file_name("2301") for artefact in Artefact] == [
        "audio_2301_words.csv",
        "audio_2301_paragraphs.csv",
        "audio_2301_transcript.json",
        "audio_2301.srt",
        "audio_2301.vtt",
    ]


def test_artefacts_go_to_the_video_s_folder_by_default() -> None:
    prefix = TranscriptionJob(**job_document()).output_prefix("transcripts")

    assert str(Artefact.WORDS.uri(prefix, "1")) == "gs://transcripts/1/audio_1_words.csv"


def test_artefacts_go_where_the_job_says() -> None:
    job = TranscriptionJob(**job_document(output_uri_prefix="gs://elsewhere/a/b/"))

    assert job.output_prefix("transcripts") == GcsUri("elsewhere", "a/b/")


def test_every_artefact_has_a_media_type() -> None:
    assert all("/" in artefact.content_type for artefact in Artefact)


@settings(derandomize=True, max_examples=40)
@given(jobs)
def test_no_artefact_of_any_job_leaves_its_prefix(job: TranscriptionJob) -> None:
    prefix = job.output_prefix("transcripts")

    for artefact in Artefact:
        uri = artefact.uri(prefix, job.video_id)

        assert uri.bucket == prefix.bucket
        assert uri.name.startswith(prefix.name)
        assert "/" not in uri.name.removeprefix(prefix.name)
        assert len(uri.name.encode()) <= MAX_NAME_BYTES
        assert GcsUri.parse(str(uri)) == uri
