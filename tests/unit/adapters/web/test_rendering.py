from collections.abc import Callable

import pytest

from worker.adapters.web.rendering import (
    clock,
    counted,
    gib,
    grouped,
    ident,
    less,
    percent,
    ratio,
    span,
    url_part,
    usd,
)


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "0 s"),
        (4.23, "4.2 s"),
        (59.6, "1 min"),
        (192, "3 min 12 s"),
        (3600, "1 h"),
        (22320, "6 h 12 min"),
        (180000, "2 d 2 h"),
    ],
)
def test_lengths_are_shown_in_the_two_largest_units(seconds: float, shown: str) -> None:
    assert span(seconds) == shown


def test_numbers_carry_their_units() -> None:
    assert clock(3723.9) == "1:02:03"
    assert (usd(0.0817), usd(8.1), usd(1234.5)) == ("$0.0817", "$8.10", "$1,234.50")
    assert (usd(0), usd(0.00009)) == ("$0.0000", "<$0.0001")
    assert (percent(90.61), ratio(41.7), ratio(4.21)) == ("90.6 %", "42x", "4.2x")
    assert gib(3 * 1024**3) == "3.0"
    assert (counted(0, "job"), counted(1, "job"), counted(1200, "job")) == ("0 jobs", "1 job", "1,200 jobs")
    assert (less(90.61), less(-4), less(0)) == ("90.6 % less", "4.0 % more", "0.0 % less")


@pytest.mark.parametrize("form", [span, clock, usd, percent, ratio, gib])
def test_an_unknown_number_is_a_dash_that_a_screen_reader_speaks(form: Callable[[None], object]) -> None:
    assert "not known" in str(form(None))


def test_a_long_id_keeps_its_end_visible_and_is_whole_in_its_title() -> None:
    shown = ident("vod-2301877415-reprocess-7d20c1f")

    assert 'title="vod-2301877415-reprocess-7d20c1f"' in shown
    assert "<span>-7d20c1f</span>" in shown


def test_a_strip_of_many_chunks_keeps_those_of_deepgram_in_sight() -> None:
    shown = grouped(["parakeet"] * 300 + ["deepgram"] + ["parakeet"] * 299)

    assert len(shown) == 120
    assert shown.count("deepgram") == 1


@pytest.mark.parametrize(("text", "part"), [("a/b?c", "a%2Fb%3Fc"), ("..", "%2E%2E"), ("vod-1.2", "vod-1.2")])
def test_an_id_is_one_segment_of_an_address(text: str, part: str) -> None:
    assert url_part(text) == part
