import pytest

from tests.support.engines.nvml import Driver
from worker.adapters.gpu import Gpus


def test_everything_is_read_in_its_unit() -> None:
    (reading,) = Gpus(Driver()).read()

    assert (reading.name, reading.utilisation, reading.power_watts) == ("NVIDIA L4", 0.83, 68.5)
    assert (reading.memory_used_bytes, reading.memory_total_bytes) == (5 * 1024**3, 24 * 1024**3)
    assert (reading.temperature_celsius, reading.ecc_errors) == (61, 2)
    assert reading.throttled_by == {"thermal", "power"}


def test_every_gpu_is_read() -> None:
    assert [reading.index for reading in Gpus(Driver(count=3)).read()] == [0, 1, 2]


@pytest.mark.parametrize("broken", ["nvmlDeviceGetTotalEccErrors", "nvmlDeviceGetPowerUsage"])
def test_readings_that_a_gpu_does_not_support_are_none(broken: str) -> None:
    (reading,) = Gpus(Driver(broken=frozenset({broken}))).read()

    assert None in {reading.ecc_errors, reading.power_watts}
    assert reading.utilisation == 0.83


@pytest.mark.parametrize("broken", ["nvmlDeviceGetCount", "nvmlDeviceGetMemoryInfo"])
def test_a_gpu_that_is_lost_is_left_out(broken: str) -> None:
    assert Gpus(Driver(broken=frozenset({broken}))).read() == ()


def test_a_machine_without_a_driver_has_none() -> None:
    assert Gpus(None).read() == ()
