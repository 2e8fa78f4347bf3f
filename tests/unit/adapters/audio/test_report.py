"""ffmpeg's words, of versions 5.1 and 7.0, and what the report makes of them."""

import pytest

from worker.adapters.audio.report import Report

SOURCE = "file:/srv/tmp/job-1"
MP3 = """\
[info] Input #0, mp3, from 'file:/srv/tmp/job-1':
[info]   Metadata:
[info]     title           : Duration: 99:00:00.00, start
[info]   Duration: 01:02:03.50, start: 0.138125, bitrate: 32 kb/s
[info]   Stream #0:0: Audio: mp3, 8000 Hz, mono, fltp, 32 kb/s
[info] Stream mapping:
[info]   Stream #0:0 -> #0:0 (mp3 (mp3float) -> pcm_f32le (native))
[Parsed_ashowinfo_0 @ 0x5581] [info] n:0 pts:0 pts_time:0 fmt:fltp channels:1 chlayout:mono rate:8000 nb_samples:47 x
"""


def _report(text: str) -> Report:
    report = Report(SOURCE)
    for line in text.splitlines():
        report.feed(line)
    return report


def test_it_reads_the_headers() -> None:
    report = _report(MP3)

    assert (report.container, report.codec, report.duration_seconds) == ("mp3", "mp3", 3723.5)
    assert (report.channels, report.sample_rate_hz) == (1, 8000)
    assert report.claimed_seconds == 3723.5
    assert report.headers_read
    assert not report.damaged


def test_a_length_ffmpeg_had_to_guess_is_no_claim() -> None:
    report = _report("[mp3 @ 0x1] [warning] Estimating duration from bitrate, this may be inaccurate\n" + MP3)

    assert report.duration_seconds == 3723.5
    assert report.claimed_seconds is None
    assert not report.falls_short(1.0)


@pytest.mark.parametrize(("seconds", "short"), [(3723.3, False), (3723.0, False), (3722.9, True)])
def test_an_mp3_falls_short_of_its_header_by_more_than_its_padding(seconds: float, short: bool) -> None:
    assert _report(MP3).falls_short(seconds) is short


def test_a_film_whose_picture_lasts_longer_does_not_fall_short() -> None:
    report = _report("[info] Input #0, mov,mp4,m4a,3gp,3g2,mj2, from 'x':\n[info]   Duration: 00:01:00.00, start: 0")

    assert not report.falls_short(50.0)


def test_refused_decoders_of_the_picture_are_no_damage() -> None:
    report = _report("[h264 @ 0x5f] [error] Codec (h264) not on whitelist 'aac,mp3'\n" + MP3)

    assert not report.damaged


@pytest.mark.parametrize(
    "line",
    [
        "[in#0/wav @ 0x4] [warning] corrupt input packet in stream 0",
        "[warning] file:/srv/tmp/job-1: corrupt input packet in stream 0",
        "[matroska,webm @ 0x3] [error] File ended prematurely",
        "[aist#0:0/flac @ 0x2] [dec:flac @ 0x3] [error] Decoding error: Invalid data found when processing input",
    ],
)
def test_damage_is_noticed(line: str) -> None:
    assert _report(MP3 + line).has_complaints


def test_the_reason_is_bounded_printable_and_without_our_paths() -> None:
    report = _report(
        "[error] file:/srv/tmp/job-1: Invalid data\x1b[31m\n"
        "[error] Error opening input file file:/srv/tmp/job-1.\n" + "[error] again\n" * 9 + "[error] " + "x" * 5000
    )

    assert report.reason == "the audio: Invalid data[31m; Error opening input file the audio.; again"


def test_without_a_complaint_there_was_simply_nothing() -> None:
    assert _report(MP3).reason == "it holds no audio samples"
