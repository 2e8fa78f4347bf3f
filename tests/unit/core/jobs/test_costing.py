import pytest

from schemas.cost import ParakeetRates
from schemas.state import Checkpoint
from worker.core.jobs.costing import Prices, bill, price_book

RATES = ParakeetRates(gpu_usd_per_second=0.0001867, vcpu_usd_per_second=0.000011244, gib_usd_per_second=0.000001235)
L4 = Prices(book_version="2026-11", rates=RATES, vcpus=4, memory_gib=16, deepgram_usd_per_minute=0.0045)


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


def test_the_price_book_is_dated_and_whole() -> None:
    book = price_book()

    assert book.version == "2026-11"
    assert book.deepgram_usd_per_minute == {"nova-3": 0.0045}
    assert (book.gpu_usd_per_second, book.vcpu_usd_per_second, book.gib_usd_per_second) == (
        0.0001867,
        0.000011244,
        0.000001235,
    )
