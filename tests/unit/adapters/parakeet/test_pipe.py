from multiprocessing import Pipe
from threading import Thread

import numpy as np
import pytest

from worker.adapters.parakeet.protocol import Batch, receive_batch, send_batch
from worker.ports import Pcm

SAMPLES = np.arange(40_000, dtype=np.int16)


@pytest.mark.parametrize(
    "windows",
    [(SAMPLES,), (SAMPLES[1000:9000], SAMPLES[8000:8001]), (SAMPLES[::2], SAMPLES[::-1]), (SAMPLES[:0], SAMPLES)],
    ids=["one", "views of one chunk", "samples that do not lie side by side", "none"],
)
def test_windows_arrive_as_they_were(windows: tuple[Pcm, ...]) -> None:
    ours, theirs = Pipe()
    sender = Thread(target=send_batch, args=(ours, Batch(windows=windows, is_last=True)))

    sender.start()
    arrived = receive_batch(theirs)
    sender.join()

    assert [window.dtype for window in arrived.windows] == [np.int16] * len(windows)
    assert all(map(np.array_equal, arrived.windows, windows))


def test_batches_keep_their_order() -> None:
    ours, theirs = Pipe()
    for number in range(3):
        terms = ((("Arlo",),), (), ((),))[number]
        send_batch(ours, Batch(windows=(SAMPLES[number : number + 2],), is_last=number == 2, keyterms=terms))

    batches = [receive_batch(theirs) for _ in range(3)]

    assert [batch.windows[0][0] for batch in batches] == [0, 1, 2]
    assert [batch.is_last for batch in batches] == [False, False, True]
    assert [batch.keyterms for batch in batches] == [(("Arlo",),), (), ((),)]


def test_a_sender_that_is_gone_ends_the_wait() -> None:
    ours, theirs = Pipe()
    ours.send((2, True, ()))
    ours.send_bytes(SAMPLES[:100])
    ours.close()

    with pytest.raises(EOFError):
        receive_batch(theirs)
