import io
import json
from dataclasses import replace
from datetime import UTC, datetime
from itertools import pairwise

import pandas as pd
import pytest
from deepgram.types import ListenV1Response
from hypothesis import given, settings
from hypothesis import strategies as st
from pandas._libs.parsers import STR_NA_VALUES

from schemas.codes import Artefact
from schemas.speech import WindowSpan, WindowTranscript, Word
from worker.core.transcript.artefacts import READ_AS_MISSING, ArtefactInfo, render_artefacts
from worker.core.transcript.merging import EngineRun, merge, merge_channels

INFO = ArtefactInfo(
    request_id="7f4b6a0e-0000-5000-8000-000000000001",
    created_at=datetime(2026, 11, 22, 10, 0, 0, 123456, tzinfo=UTC),
    audio_sha256="ab" * 32,
    duration_seconds=90.0625,
    model_name="parakeet-tdt-0.6b-v2",
    model_version="f00d",
)
WORDS = (
    Word("Hello,", 0.08, 0.4, 0.98765),
    Word("Mr.", 0.5, 0.7, 0.9),
    Word("Núñez.", 0.7, 1.2, 1.0),
    Word("Don't", 2.0, 2.25, 0.5),
    Word("pay", 2.25, 2.5, 0.5),
    Word("$3.50!", 2.5, 3.123, 0.25),
)


def rendered(words: tuple[Word, ...] = WORDS, info: ArtefactInfo = INFO) -> dict[Artefact, bytes]:
    return render_artefacts(words, info)[0]


def table(file: bytes) -> pd.DataFrame:
    return pd.read_csv(io.BytesIO(file))


def test_words_are_raw_rows_with_crlf() -> None:
    assert rendered()[Artefact.WORDS].decode() == (
        "start_time,end_time,word\r\n"
        "0.080,0.400,hello\r\n0.500,0.700,mr\r\n0.700,1.200,núñez\r\n"
        "2.000,2.250,don't\r\n2.250,2.500,pay\r\n2.500,3.123,3.50\r\n"
    )


def test_paragraphs_are_written_as_spoken() -> None:
    assert rendered()[Artefact.PARAGRAPHS].decode() == (
        'start_time,end_time,text\r\n0.080,1.200,"Hello, Mr. Núñez."\r\n2.000,3.123,Don\'t pay $3.50!\r\n'
    )


def test_the_transcript_has_deepgrams_shape() -> None:
    response = json.loads(rendered()[Artefact.TRANSCRIPT])

    (model,) = response["metadata"]["models"]
    (channel,) = response["results"]["channels"]
    (best,) = channel["alternatives"]
    assert response["metadata"]["created"] == "2026-11-22T10:00:00.123Z"
    assert response["metadata"]["duration"] == 90.062
    assert response["metadata"]["model_info"][model]["name"] == "parakeet-tdt-0.6b-v2"
    assert best["transcript"] == "Hello, Mr. Núñez. Don't pay $3.50!"
    assert best["confidence"] == 0.69
    assert best["words"][0] == {
        "word": "hello", "start": 0.08, "end": 0.4, "confidence": 0.988, "punctuated_word": "Hello,",
    }  # fmt: skip
    assert best["paragraphs"] == {
        "transcript": "\nHello, Mr. Núñez.\n\nDon't pay $3.50!",
        "paragraphs": [
            {
                "sentences": [{"text": "Hello, Mr. Núñez.", "start": 0.08, "end": 1.2}],
                "start": 0.08,
                "end": 1.2,
                "num_words": 3,
            },
            {
                "sentences": [{"text": "Don't pay $3.50!", "start": 2.0, "end": 3.123}],
                "start": 2.0,
                "end": 3.123,
                "num_words": 3,
            },
        ],
    }


def test_deepgrams_response_model_reads_the_transcript_with_nothing_missing() -> None:
    data = rendered()[Artefact.TRANSCRIPT]

    response = ListenV1Response.model_validate_json(data)

    written = json.loads(response.model_dump_json(exclude_none=True))
    expected = json.loads(data)
    assert response.metadata.created == datetime(2026, 11, 22, 10, 0, 0, 123000, tzinfo=UTC)
    assert written["results"] == expected["results"]
    assert written["metadata"].keys() == expected["metadata"].keys()


def test_no_speech_still_makes_readable_files() -> None:
    files = rendered(())

    response = ListenV1Response.model_validate_json(files[Artefact.TRANSCRIPT])
    assert table(files[Artefact.WORDS]).empty
    assert table(files[Artefact.PARAGRAPHS]).empty
    assert response.results.channels[0].alternatives[0].words == []


def test_files_are_named_for_the_video_and_made_only_as_asked() -> None:
    asked = rendered(info=_with(Artefact.VTT, Artefact.SRT))

    assert [kind.file_name("v1") for kind in rendered()] == [
        "audio_v1_words.csv",
        "audio_v1_paragraphs.csv",
        "audio_v1_transcript.json",
    ]
    assert [kind.file_name("v1") for kind in asked][3:] == ["audio_v1.srt", "audio_v1.vtt"]
    assert Artefact.VTT.content_type.startswith("text/vtt")


def _with(*outputs: Artefact) -> ArtefactInfo:
    return ArtefactInfo(
        **{**{name: getattr(INFO, name) for name in INFO.__slots__}, "extra_outputs": frozenset(outputs)}
    )


def test_two_renderings_are_the_same_bytes() -> None:
    info = _with(Artefact.SRT, Artefact.VTT)

    assert render_artefacts(WORDS, info) == render_artefacts(tuple(WORDS), info)


def test_we_know_all_that_pandas_takes_for_missing() -> None:
    assert STR_NA_VALUES <= READ_AS_MISSING


@pytest.mark.parametrize("text", [*sorted(READ_AS_MISSING - {""}), "Nan.", "Null?", '"N/A"', "none", "NA,"])
def test_no_word_and_no_paragraph_reads_as_missing(text: str) -> None:
    files = rendered((Word("So.", 0, 0.5, 1), Word(text, 5, 6, 1)))

    words, paragraphs = table(files[Artefact.WORDS]), table(files[Artefact.PARAGRAPHS])

    assert words["word"].notna().all()
    assert words["word"].str.len().gt(0).all()
    assert paragraphs["text"].notna().all()


def test_a_word_that_reads_as_missing_gets_a_full_stop_in_the_table_only() -> None:
    files = rendered((Word("My", 0, 0.2, 1), Word("nan", 0.2, 0.5, 1)))

    spoken = json.loads(files[Artefact.TRANSCRIPT])["results"]["channels"][0]["alternatives"][0]["words"]
    assert list(table(files[Artefact.WORDS])["word"]) == ["my", "nan."]
    assert [word["word"] for word in spoken] == ["my", "nan"]


texts = st.text(min_size=1, max_size=12) | st.sampled_from(
    ["NA", "null", "Yes.", 'a "b",', "N/A", "3.5", "Ünïcode", "=1+1"]
)


@st.composite
def timelines(draw: st.DrawFn) -> tuple[Word, ...]:
    spoken = [
        Word(text, draw(st.floats(0, 200)), draw(st.floats(0, 200)), draw(st.floats(0, 1)))
        for text in draw(st.lists(texts, max_size=30))
    ]
    return merge([WindowTranscript(WindowSpan(0, 16_000 * 200), tuple(spoken))])


@given(timelines())
@settings(max_examples=25)
def test_the_tables_hold_every_word_in_strict_order(words: tuple[Word, ...]) -> None:
    rows = pd.read_csv(io.BytesIO(rendered(words)[Artefact.WORDS]), dtype={"word": str})

    assert len(rows) == len(words)
    assert rows["word"].notna().all()
    assert list(rows["start_time"]) == [word.start_seconds for word in words]
    for row, following in pairwise(rows.itertuples()):
        assert row.start_time < following.start_time
        assert row.start_time < row.end_time <= following.start_time


def analysis_windows(
    words: pd.DataFrame, paragraphs: pd.DataFrame, hop: float
) -> list[tuple[pd.DataFrame, pd.DataFrame]]:
    """The pipeline's windows: of 60 s, one each `hop`; the words that start inside, the paragraphs that touch it."""
    last = max([0.0, *words["end_time"]])
    return [
        (
            words[(words["start_time"] >= start) & (words["start_time"] < start + 60)],
            paragraphs[(paragraphs["start_time"] < start + 60) & (paragraphs["end_time"] > start)],
        )
        for start in (hop * i for i in range(int(last // hop) + 1))
    ]


@given(timelines(), st.sampled_from([30.0, 60.0]))
@settings(max_examples=25)
def test_every_word_is_in_an_analysis_window_with_its_paragraph(words: tuple[Word, ...], hop: float) -> None:
    files = rendered(words)

    windows = analysis_windows(table(files[Artefact.WORDS]), table(files[Artefact.PARAGRAPHS]), hop)

    found = {row.start_time for inside, _ in windows for row in inside.itertuples()}
    assert found == {word.start_seconds for word in words}
    for inside, near in windows:
        for row in inside.itertuples():
            assert ((near["start_time"] <= row.start_time) & (near["end_time"] >= row.end_time)).any()


@given(timelines())
@settings(max_examples=25)
def test_a_paragraph_of_30_seconds_fits_into_a_window_of_the_30_second_hop(words: tuple[Word, ...]) -> None:
    paragraphs = table(rendered(words)[Artefact.PARAGRAPHS])

    for row in paragraphs.itertuples():
        window_start = row.start_time // 30 * 30
        assert row.end_time - row.start_time > 30 or row.end_time <= window_start + 60


def test_channels_apart_are_entries_of_their_own_that_deepgrams_response_model_reads() -> None:
    left, right = WORDS[:3], (Word("Buenos", 0.3, 0.6, 0.9), Word("días.", 5.0, 5.5, 0.8))

    files, _ = render_artefacts(merge_channels([left, right]), INFO, (left, right))

    response = ListenV1Response.model_validate_json(files[Artefact.TRANSCRIPT])
    transcripts = [channel.alternatives[0].transcript for channel in response.results.channels]
    assert transcripts == ["Hello, Mr. Núñez.", "Buenos días."]
    assert response.metadata.channels == 2
    assert list(table(files[Artefact.WORDS])["word"]) == ["hello", "buenos", "mr", "núñez", "días"]


def test_an_alternative_names_its_engines_where_there_are_several() -> None:
    runs = (EngineRun("parakeet", 4), EngineRun("deepgram", 1), EngineRun("parakeet", 1))

    mixed, plain = (
        json.loads(rendered(info=replace(INFO, engines=(engines,)))[Artefact.TRANSCRIPT])
        for engines in (runs, runs[:1])
    )

    (alternative,) = mixed["results"]["channels"][0]["alternatives"]
    assert alternative.pop("engines") == [
        {"engine": "parakeet", "num_words": 4},
        {"engine": "deepgram", "num_words": 1},
        {"engine": "parakeet", "num_words": 1},
    ]
    assert mixed == plain == json.loads(rendered()[Artefact.TRANSCRIPT])
