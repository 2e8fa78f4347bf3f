from dataclasses import replace

import pytest

from schemas.events import DeepgramCost, ParakeetRates
from schemas.state import Checkpoint, Waste
from worker.core.costs.bill import Prices, bill, price_book, speed_for_savings
from worker.errors import DeepgramPriceUnknown

RATES = ParakeetRates(gpu_usd_per_second=0.0001867, vcpu_usd_per_second=0.000011244, gib_usd_per_second=0.000001235)
L4 = Prices(book_version="2026-11", rates=RATES, vcpus=4, memory_gib=16, deepgram_usd_per_minute=0.0045)
BIG_L4 = replace(L4, vcpus=8, memory_gib=32)


def chunk(
    index: int, *, engine: str = "parakeet", audio_seconds: float = 600.0, engine_seconds: float = 0.0
) -> Checkpoint:
    return Checkpoint(
        index=index,
        start_sample=0,
        end_sample=1,
        engine=engine,
        windows=(),
        engine_seconds=engine_seconds,
        audio_seconds=audio_seconds,
        deepgram_request_id=f"request-{index}" if engine == "deepgram" else None,
    )


def test_the_contracts_example_comes_out_to_the_cent_of_a_cent() -> None:
    chunks = [chunk(0, audio_seconds=3000.0, engine_seconds=4.1), chunk(1, engine="deepgram")]

    cost = bill(chunks, 3600.0, L4)

    # 4.1 s x (0.0001867 + 4 x 0.000011244 + 16 x 0.000001235) = 0.0010308876; 10 min x 0.0045 = 0.045
    assert cost.engines[0].usd == 0.001031
    assert cost.engines[1].usd == 0.045
    assert cost.usd == pytest.approx(0.046031)
    assert cost.baseline.usd == 0.27
    assert cost.savings_usd == pytest.approx(0.223969)
    assert cost.savings_percent == pytest.approx(82.951481, abs=1e-6)


def test_every_deepgram_request_is_named() -> None:
    cost = bill([chunk(0, engine="deepgram"), chunk(1, engine="deepgram")], 1200.0, L4)

    assert cost.engines[0].requests == 2
    assert cost.engines[0].request_ids == ("request-0", "request-1")


def test_nothing_done_costs_nothing_and_saves_nothing() -> None:
    cost = bill([], 0.0, L4)

    assert (cost.usd, cost.engines, cost.savings_percent) == (0, (), 0.0)


def test_parakeet_seconds_of_a_chunk_that_fell_back_are_still_paid_for() -> None:
    cost = bill([chunk(0, engine="deepgram", engine_seconds=2.0)], 600.0, L4)

    assert [engine.engine for engine in cost.engines] == ["parakeet", "deepgram"]
    assert cost.engines[0].audio_seconds == 0.0


@pytest.mark.parametrize(("hours", "deepgram_usd"), [(1, 0.270), (3, 0.810), (6, 1.620)])
def test_the_users_table_saves_more_than_90_percent_at_40_times_real_time_on_4_vcpus(
    hours: int, deepgram_usd: float
) -> None:
    audio_seconds = hours * 3600.0

    cost = bill([chunk(0, audio_seconds=audio_seconds, engine_seconds=audio_seconds / 40)], audio_seconds, L4)

    assert cost.baseline.usd == pytest.approx(deepgram_usd)
    assert cost.savings_percent > 90


@pytest.mark.parametrize(("shape", "usd_an_hour", "speed"), [(L4, 0.905, 33.5249), (BIG_L4, 1.138, 42.1563)])
def test_the_speed_that_saves_90_percent_depends_on_the_shape(shape: Prices, usd_an_hour: float, speed: float) -> None:
    found = speed_for_savings(shape, 90)
    cost = bill([chunk(0, audio_seconds=3600.0, engine_seconds=3600 / found)], 3600.0, shape)

    assert shape.instance_usd_per_second * 3600 == pytest.approx(usd_an_hour, abs=0.001)
    assert found == pytest.approx(speed, abs=1e-4)
    assert cost.savings_percent == pytest.approx(90, abs=1e-3)


def test_at_40_times_real_time_the_two_shapes_save_what_the_readme_says() -> None:
    saved = [
        bill([chunk(0, audio_seconds=3600.0, engine_seconds=90.0)], 3600.0, shape).savings_percent
        for shape in (L4, BIG_L4)
    ]

    assert [round(percent, 1) for percent in saved] == [91.6, 89.5]


def test_requests_that_were_billed_for_nothing_are_counted_and_paid_for() -> None:
    sent = chunk(0, engine="deepgram").model_copy(
        update={"deepgram_wasted_requests": 2, "deepgram_billed_seconds": 601.5}
    )

    (deepgram,) = bill([sent], 600.0, L4).engines

    assert deepgram.requests == 3
    assert deepgram.usd == 0.135337  # 3 x 601.5 s at 0.0045 a minute: 0.1353375


def test_what_failed_chunks_cost_is_paid_for_and_buys_no_audio() -> None:
    waste = Waste(engine_seconds=4.1, deepgram_requests=2, deepgram_seconds=1200.0)

    parakeet, deepgram = bill([], 0.0, L4, waste).engines

    assert (parakeet.audio_seconds, parakeet.gpu_seconds, parakeet.usd) == (0.0, 4.1, 0.001031)
    assert (deepgram.audio_seconds, deepgram.requests, deepgram.request_ids, deepgram.usd) == (0.0, 2, (), 0.09)


def test_failed_chunks_are_added_to_those_that_were_done() -> None:
    waste = Waste(deepgram_requests=1, deepgram_seconds=60.0)

    (deepgram,) = bill([chunk(0, engine="deepgram")], 600.0, L4, waste).engines

    assert (deepgram.requests, deepgram.audio_seconds, deepgram.usd) == (2, 600.0, 0.0495)


def test_requests_wasted_on_a_chunk_that_parakeet_did_are_paid_for() -> None:
    done = chunk(0, engine_seconds=1.0).model_copy(update={"deepgram_wasted_requests": 1})

    _, deepgram = bill([done], 600.0, L4).engines

    assert (deepgram.requests, deepgram.audio_seconds, deepgram.usd) == (1, 0.0, 0.045)


def test_audio_whose_language_deepgram_finds_out_has_its_own_price_against_the_same_baseline() -> None:
    prices = replace(L4, deepgram_multilingual_usd_per_minute=0.0052)

    cost = bill([chunk(0, engine="deepgram")], 600.0, prices, language="auto")

    assert [engine.usd for engine in cost.engines] == [pytest.approx(0.052)]
    assert cost.baseline.usd == pytest.approx(0.045)
    assert bill([chunk(0, engine="deepgram")], 600.0, prices, language="de").engines[0].usd == pytest.approx(0.045)
    assert bill([chunk(0, engine="deepgram")], 600.0, L4, language="auto").engines[0].usd == pytest.approx(0.045)


@pytest.mark.parametrize(("language", "usd"), [("en", 0.058), ("auto", 0.065)])
def test_keyterms_add_their_price_to_deepgrams_minutes_against_the_same_baseline(language: str, usd: float) -> None:
    prices = replace(L4, deepgram_multilingual_usd_per_minute=0.0052, deepgram_keyterm_usd_per_minute=0.0013)

    cost = bill([chunk(0, engine="deepgram")], 600.0, prices, language=language, has_keyterms=True)

    (deepgram,) = cost.engines
    assert isinstance(deepgram, DeepgramCost)
    assert deepgram.usd == pytest.approx(usd)
    assert deepgram.rates.usd_per_minute == pytest.approx(usd / 10)
    assert cost.baseline.usd == pytest.approx(0.045)


def test_a_model_without_a_price_is_named_with_those_that_have_one() -> None:
    with pytest.raises(DeepgramPriceUnknown, match="'nova-9', only nova-3, nova-2"):
        price_book().of_deepgram("nova-9")


def test_the_price_book_is_dated_and_whole() -> None:
    book = price_book()

    assert book.version == "2026-11"
    assert book.deepgram_usd_per_minute == {"nova-3": 0.0045, "nova-2": 0.0043}
    assert book.deepgram_multilingual_usd_per_minute == {"nova-3": 0.0052}
    assert book.deepgram_keyterm_usd_per_minute == {"nova-3": 0.0013}
    assert (book.gpu_usd_per_second, book.vcpu_usd_per_second, book.gib_usd_per_second) == (
        0.0001867,
        0.000011244,
        0.000001235,
    )
