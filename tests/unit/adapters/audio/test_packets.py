"""The arithmetic of packets and times, without ffmpeg."""

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.adapters.audio.matroska import NotPackets, PacketReader
from worker.adapters.audio.timeline import Doubt, PacketClock, Timeline
from worker.errors import AudioTooLong
from worker.ports import SAMPLE_RATE_HZ, Pcm

MS = SAMPLE_RATE_HZ // 1000
FRAME_MS = 20


def element(name: str, body: bytes) -> bytes:
    return bytes.fromhex(name) + (1 << 56 | len(body)).to_bytes(8, "big") + body


def stream(clusters: list[tuple[int, list[tuple[int, bytes]]]]) -> bytes:
    """As ffmpeg writes it into a pipe: elements of no interest, and a segment of unknown size."""
    begin = element("1A45DFA3", b"header") + bytes.fromhex("18538067") + b"\x01" + b"\xff" * 7
    body = b"".join(
        element(
            "1F43B675",
            element("E7", time.to_bytes(4, "big"))
            + b"".join(element("A3", b"\x81" + struct.pack(">h", offset) + b"\x80" + data) for offset, data in blocks),
        )
        for time, blocks in clusters
    )
    return begin + element("EC", bytes(40)) + body + element("1C53BB6B", b"cues")


@given(
    clusters=st.lists(
        st.tuples(
            st.integers(0, 2**31),
            st.lists(st.tuples(st.integers(-(2**15), 2**15 - 1), st.binary(max_size=60)), max_size=4),
        ),
        max_size=4,
    ),
    sizes=st.lists(st.integers(1, 50), min_size=1),
)
def test_packets_come_out_however_the_stream_is_cut(
    clusters: list[tuple[int, list[tuple[int, bytes]]]], sizes: list[int]
) -> None:
    data, reader, found = stream(clusters), PacketReader(), []

    at = 0
    while at < len(data):
        size = sizes[at % len(sizes)]
        found += [(packet.milliseconds, bytes(packet.body)) for packet in reader.feed(data[at : at + size])]
        at += size

    assert found == [(time + offset, body) for time, blocks in clusters for offset, body in blocks]


def test_what_is_no_stream_of_packets_is_a_defect() -> None:
    with pytest.raises(NotPackets):
        list(PacketReader().feed(bytes(100)))


# --- times ------------------------------------------------------------------------------------------------------------


def frame(value: int = 1000, ms: int = FRAME_MS) -> Pcm:
    return np.full((ms * MS, 1), value, np.int16)


def laid(timeline: Timeline, times_ms: list[int], samples: Pcm | None = None) -> list[int]:
    """Lay a frame at each of these times; return the starts by the count of samples."""
    begins = []
    for time in times_ms:
        pieces = list(timeline.lay(time, frame() if samples is None else samples))
        begins.append((timeline.filled - len(pieces[-1])) // MS if pieces else -1)
    return begins


def fine(**facts: float) -> Timeline:
    return Timeline(PacketClock(**facts), max_seconds=100, coarse=False)


def test_a_gap_is_filled_and_what_follows_is_where_it_says() -> None:
    timeline = fine()

    assert laid(timeline, [0, 20, 340, 360]) == [0, 20, 340, 360]
    assert timeline.has_gap


def test_times_that_jitter_below_a_tenth_of_a_second_move_nothing() -> None:
    timeline = fine()

    assert laid(timeline, [0, 50, 20, 90, 100, 150]) == [0, 20, 40, 60, 80, 100]
    assert not timeline.has_gap


def test_a_clock_that_runs_ahead_little_by_little_is_followed_once_it_has_lasted() -> None:
    timeline = fine()

    begins = laid(timeline, [number * 21 for number in range(400)])

    assert all(abs(begin - number * 21) <= 180 for number, begin in enumerate(begins))


def test_times_reckoned_wrong_between_two_stated_ones_leave_no_silence() -> None:
    timeline = fine()
    stated = [group * 160 + number * 40 for group in range(20) for number in range(8)]
    clamped = [max(stated[: number + 1]) for number in range(len(stated))]  # as ffmpeg writes them

    begins = laid(timeline, clamped)

    assert begins == [number * 20 for number in range(160)]


def test_a_clock_that_is_slower_takes_samples_out_of_quiet_moments_only() -> None:
    timeline = fine()
    loud = laid(timeline, [number * 19 for number in range(250)])
    quiet = laid(timeline, [4750], frame(value=5))

    assert loud[-1] == 249 * 20
    assert not timeline.dropped_loud
    assert quiet == [-1]


@pytest.mark.parametrize("back_to", [0, 1000])
def test_a_clock_that_starts_anew_means_nothing(back_to: int) -> None:
    timeline = fine()
    written = [number * 20 for number in range(100)] + [1981 + number for number in range(50)]  # as ffmpeg clamps them

    begins = laid(timeline, written)

    assert back_to < 1980
    assert begins == [number * 20 for number in range(150)]


def test_a_start_is_measured_from_the_file_s_first_moment() -> None:
    assert laid(fine(), [700]) == [700]
    assert laid(fine(zero_seconds=0.5), [700]) == [200]
    assert laid(fine(zero_seconds=-0.5), [0]) == [500]
    assert laid(Timeline(PacketClock(), max_seconds=100, coarse=False, follows=True), [700]) == [0]


def test_a_coarse_packet_that_is_elsewhere_asks_for_a_closer_look() -> None:
    timeline = Timeline(PacketClock(), max_seconds=100, coarse=True)
    laid(timeline, [0, 20, 43])

    assert timeline.missing_before(70) == 10 * MS
    with pytest.raises(Doubt):
        laid(timeline, [161])


def test_the_first_coarse_packet_misses_nothing_before_it() -> None:
    assert Timeline(PacketClock(), max_seconds=100, coarse=True).missing_before(7_000) == 0


@pytest.mark.parametrize("hours", [1, 100, 10_000])
def test_a_gap_beyond_the_limit_is_refused_before_a_sample_of_it(hours: int) -> None:
    timeline = fine()
    laid(timeline, [0])

    with pytest.raises(AudioTooLong):
        next(timeline.lay(hours * 3_600_000, frame()))


def test_a_container_without_a_clock_has_no_gaps() -> None:
    timeline = Timeline(PacketClock(states_times=False), max_seconds=100, coarse=False)

    assert laid(timeline, [5000, 20, 9000]) == [0, 20, 40]
