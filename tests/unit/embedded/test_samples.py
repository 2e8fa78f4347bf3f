from itertools import pairwise

from worker.embedded.samples import samples, tiny_model


def test_three_conversations_in_three_formats_come_with_the_package() -> None:
    found = samples()

    assert [sample.path.name for sample in found] == ["four-voices.mp3", "three-voices.m4a", "two-voices.opus"]
    assert [sample.media_type for sample in found] == ["audio/mpeg", "audio/mp4", "audio/ogg"]
    assert [len(sample.speakers) for sample in found] == [4, 3, 2]
    assert all(sample.path.is_file() and sample.seconds > 180 for sample in found)


def test_a_transcript_has_speakers_and_times_without_overlap() -> None:
    for sample in samples():
        utterances = sample.utterances

        assert all(first.end_sample < second.start_sample for first, second in pairwise(utterances))
        assert utterances[-1].end_sample / 16_000 <= sample.seconds
        assert sample.text.startswith(utterances[0].text)


def test_the_model_comes_with_the_package() -> None:
    assert 4_000_000 < tiny_model().stat().st_size < 5_000_000
