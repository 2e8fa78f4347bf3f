"""Decoding with keyterms in the tiny network: each row for itself, by either loop, and as a CUDA graph demands it."""

from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.support.engines.network import frames_of, parts_of, tiny_files, tiny_transcriber
from tests.support.engines.parakeet import in_noise
from worker.ports import Pcm

torch = pytest.importorskip("torch")

from tests.support.engines.graph_recorder import WAITS_FOR_THE_DEVICE, Recorder  # noqa: E402  needs torch
from tests.support.engines.operations import Watching  # noqa: E402
from worker.adapters.parakeet.child_process.pipeline import Pipeline  # noqa: E402
from worker.adapters.parakeet.network.boosting import Boost, Keyterms, WindowTerms, window_terms  # noqa: E402
from worker.adapters.parakeet.network.passes import LonePasses  # noqa: E402
from worker.adapters.parakeet.network.tdt_decoder import DecoderRows, Steps, TdtDecoder  # noqa: E402
from worker.adapters.parakeet.network.window_decoder import WindowDecoder  # noqa: E402
from worker.adapters.parakeet.network.words import Token  # noqa: E402
from worker.adapters.parakeet.protocol import Batch  # noqa: E402

if TYPE_CHECKING:
    from torch import Tensor

    from worker.adapters.parakeet.network.transcriber import Transcriber

pytestmark = pytest.mark.timeout(300)

NAMES = ("Helen", "Peter", "Maria", "David")
STRANGERS = tuple(f"{first} {last}" for first in ("Oscar", "Monica", "Thea") for last in ("Winter", "Ostrom", "Gale"))
FRAME_SAMPLES = 1_280


def tokens(network: "Transcriber", windows: Sequence[Pcm], keyterms: Sequence[tuple[str, ...]]) -> list[list[Token]]:
    return network._tokens([network.encode(windows, keyterms)])


def test_windows_of_different_jobs_in_one_group_are_decoded_as_each_alone(speech_windows: tuple[Pcm, ...]) -> None:
    windows = in_noise(speech_windows)
    lists = [NAMES, (), STRANGERS, (*STRANGERS, *NAMES), NAMES, ("Helen",), (), ("a",)]
    network = tiny_transcriber()

    together = tokens(network, windows, lists)

    alone = [tokens(tiny_transcriber(), [one], [terms])[0] for one, terms in zip(windows, lists, strict=True)]
    plain = tokens(tiny_transcriber(), windows, ())
    assert together == alone
    assert [together[1], together[6]] == [plain[1], plain[6]]
    assert together != plain


@pytest.mark.parametrize("weight", [0.0, 3.0])
def test_keyterms_without_weight_or_without_a_match_change_nothing(
    weight: float, speech_windows: tuple[Pcm, ...]
) -> None:
    network = tiny_transcriber(keyterm_weight=weight)
    terms = ("東京", "Ωμέγα") if weight else NAMES

    assert tokens(network, speech_windows, [terms] * 8) == tokens(network, speech_windows, ())


def test_without_keyterms_no_operation_is_added(speech_windows: tuple[Pcm, ...]) -> None:
    network, ran = tiny_transcriber(), []
    for keyterms in ((), [NAMES] * 8):
        encoded = network.encode(speech_windows, keyterms)
        with Watching() as watching:
            network.decode([encoded])
        ran.append(watching.ran)

    plain, boosted = ran
    assert not {"aten.scatter_add_.default", "aten.addcmul.default", "aten.gather.default"} & plain.keys()
    assert {"aten.scatter_add_.default", "aten.addcmul.default", "aten.gather.default"} <= boosted.keys()


def test_both_loops_give_the_same_words_with_keyterms(speech_windows: tuple[Pcm, ...]) -> None:
    windows = in_noise(speech_windows)
    lists = [NAMES, (), STRANGERS, NAMES, (), (), ("Helen",), STRANGERS]
    batches = [
        Batch(windows=windows[at : at + 2], is_last=at > 4, keyterms=tuple(lists[at : at + 2])) for at in (0, 2, 4, 6)
    ]
    batches[2] = Batch(windows=windows[4:6], is_last=False)

    def words(*, overlap: bool) -> list[object]:
        waiting = deque(batches)
        pipeline = Pipeline(tiny_transcriber(batch_windows=2), overlap=overlap)
        return [one.words for one in pipeline.answers(lambda _: waiting.popleft() if waiting else None)]

    assert words(overlap=True) == words(overlap=False)


def test_a_confidence_is_that_of_the_model_without_boosts(speech_windows: tuple[Pcm, ...]) -> None:
    windows = in_noise(speech_windows)
    plain, boosted = (tokens(tiny_transcriber(), windows, keyterms) for keyterms in ((), [NAMES] * 8))

    alike, other = [], []
    for first, second in zip(plain, boosted, strict=True):
        pairs = list(zip(first, second, strict=False))
        same = next((at for at, (one, two) in enumerate(pairs) if one.piece != two.piece), len(pairs))
        alike += [one == two for one, two in pairs[:same]]
        other += [(one.confidence, two.confidence) for one, two in pairs[same : same + 1] if one.frame == two.frame]
    assert all(alike)
    assert other
    assert all(boosted < plain and boosted < 0.5 for plain, boosted in other)


@pytest.mark.parametrize("level", [0, 30, 1_000])
def test_a_window_of_silence_or_noise_is_not_boosted(level: int) -> None:
    samples = (np.random.default_rng(3).standard_normal(25 * 16_000) * level).astype(np.int16)
    network = tiny_transcriber(keyterm_weight=10)

    assert tokens(network, [samples], [NAMES]) == tokens(network, [samples], ())


def test_a_hundred_terms_of_one_letter_do_not_flood_the_text(speech_windows: tuple[Pcm, ...]) -> None:
    letters = tuple("abcdefghijklmnopqrstuvwxyz" * 4)[:100]
    network = tiny_transcriber()

    plain, boosted = network(speech_windows), network.decode([network.encode(speech_windows, [letters] * 8)])[0]

    def lone(found: Sequence[Sequence[object]]) -> int:
        return sum(len(word.text.strip(".,?")) == 1 for words in found for word in words)  # type: ignore[attr-defined]

    assert sum(map(len, boosted)) == pytest.approx(sum(map(len, plain)), rel=0.02)
    assert lone(boosted) <= lone(plain) + 2


def test_automata_are_built_once_for_a_list() -> None:
    keyterms = Keyterms(tiny_files().pieces, 3.0, torch.device("cpu"))
    window = WindowTerms(terms=NAMES, speech=np.ones(10, np.bool_))

    first, second = keyterms.rows([window], 8), keyterms.rows([window, None, window], 8)

    assert first
    assert second
    assert first.labels is second.labels
    assert keyterms.rows([None, None], 8) is None


# --- recordings -------------------------------------------------------------------------------------------------------


def rows_of(windows: Sequence[Pcm], lists: Sequence[tuple[str, ...]], rows: int = 8) -> DecoderRows:
    frames = frames_of(list(LonePasses(parts_of(tiny_transcriber()))(windows)))
    lengths = [len(one) for one in frames] + [0] * (rows - len(frames))
    starts = [sum(lengths[:row]) if length else 0 for row, length in enumerate(lengths)]
    keyterms = Keyterms(tiny_files().pieces, 3.0, torch.device("cpu"))
    return DecoderRows(
        frames=torch.cat(frames),
        starts=torch.tensor(starts),
        lengths=torch.tensor(lengths),
        boost=keyterms.rows(window_terms(windows, lists, FRAME_SAMPLES), rows),
    )


def same(steps: Steps, others: Steps) -> bool:
    return all(map(torch.equal, steps, others))


def decoder() -> TdtDecoder:
    return parts_of(tiny_transcriber()).decoder


def test_a_recording_with_keyterms_gives_the_same_steps_whatever_the_terms(speech_windows: tuple[Pcm, ...]) -> None:
    windows = in_noise(speech_windows)
    given = [
        rows_of(windows, [NAMES, (), STRANGERS] * 2 + [NAMES] * 2),
        rows_of(windows[:5], [(*NAMES, *STRANGERS)] * 5),
        rows_of(windows[2:4], [("Helen",), ()]),
        rows_of(windows[:3], ()),
    ]
    recorded, recorder, refused = decoder(), Recorder(), list[str]()
    recorded.record(
        given[3] if len(given[3].frames) >= len(given[0].frames) else rows_of(windows, ()), recorder, refused.append
    )
    recorded.record(given[0], recorder, refused.append)
    before = recorder.repeated

    got = [recorded(rows) for rows in given]

    expected = [decoder()(rows) for rows in given]
    assert not refused
    assert recorder.recorded == 2
    assert all(map(same, got, expected))
    assert recorder.repeated - before == sum(len(steps.emitted) for steps in expected) // 8


def test_tables_in_a_recording_keep_nothing_of_larger_ones_before(speech_windows: tuple[Pcm, ...]) -> None:
    large = rows_of(speech_windows[:1], [(*STRANGERS, *NAMES)])
    small = rows_of(speech_windows[:1], [("Helen",)])
    assert large.boost
    assert small.boost
    tables = large.boost.room()

    tables.copy_from(large.boost)
    tables.copy_from(small.boost)

    states, arcs = small.boost.labels.shape
    blank = len(tiny_files().pieces)
    assert torch.equal(tables.labels[:states, :arcs], small.boost.labels)
    assert torch.equal(tables.boosts[:states, :arcs], small.boost.boosts)
    assert not tables.boosts[tables.labels == blank].any()


def test_the_step_with_keyterms_is_recorded_before_the_first_windows_that_have_any(
    speech_windows: tuple[Pcm, ...],
) -> None:
    network, recorder = tiny_transcriber(), Recorder()
    windows = [*in_noise(speech_windows)] * 2  # as many as a step on a CPU has rows
    full = WindowDecoder(
        decoder(),
        tiny_files().pieces,
        Keyterms(tiny_files().pieces, 3.5, torch.device("cpu")),
        most_windows=len(windows),
        most_frames=20 * 512,
    )
    reports: list[str] = []
    full.record(recorder, torch.device("cpu"), torch.float32, lambda event, **_: reports.append(event))
    recorded = [recorder.recorded]
    found = []
    for lists in ([()] * 16, [NAMES] * 16, [STRANGERS, NAMES] * 8):
        terms = window_terms(windows, lists, FRAME_SAMPLES)
        found.append(full.tokens(list(network.encode(windows).parts), terms))
        recorded.append(recorder.recorded)

    assert recorded == [1, 1, 2, 2]
    assert not reports
    assert found == [tokens(network, windows, lists) for lists in ((), [NAMES] * 16, [STRANGERS, NAMES] * 8)]


def test_tables_that_are_larger_than_the_recordings_are_used_without_it(speech_windows: tuple[Pcm, ...]) -> None:
    rows = rows_of(speech_windows[:1], [NAMES])
    assert rows.boost
    wide = Boost(
        **{name: getattr(rows.boost, name) for name in ("root_targets", "root_boosts", "speech")},
        **{name: torch.nn.functional.pad(getattr(rows.boost, name), (0, 64), value=256) for name in ("labels",)},
        **{name: torch.nn.functional.pad(getattr(rows.boost, name), (0, 64)) for name in ("targets", "boosts")},
    )
    recorded, recorder = decoder(), Recorder()
    recorded.record(rows, recorder, lambda _: None)
    before = recorder.repeated

    steps = recorded(DecoderRows(frames=rows.frames, starts=rows.starts, lengths=rows.lengths, boost=wide))

    assert recorder.repeated == before
    assert same(steps, decoder()(rows))


def test_a_step_with_keyterms_reads_no_value(speech_windows: tuple[Pcm, ...]) -> None:
    rows = rows_of(speech_windows[:4], [NAMES, STRANGERS, (), NAMES])

    with Watching() as watching:
        steps = decoder()(rows)

    assert sum(watching.ran[name] for name in WAITS_FOR_THE_DEVICE) == len(steps.emitted) // 8 + 1


def test_boosts_are_computed_on_tensors_without_values() -> None:
    def meta(*shape: int, dtype: "torch.dtype" = torch.int64) -> "Tensor":
        return torch.empty(*shape, dtype=dtype, device="meta")

    boost = Boost(
        root_targets=meta(8, 257),
        root_boosts=meta(8, 257, dtype=torch.float32),
        speech=meta(8, 512, dtype=torch.float32),
        labels=meta(99, 7),
        targets=meta(99, 7),
        boosts=meta(99, 7, dtype=torch.float32),
    )

    with Watching() as watching:
        labels, states = boost.choose(meta(8, 257, dtype=torch.float32), meta(8), meta(8))

    assert not watching.met_values
    assert labels.shape == states.shape == (8,)
