import numpy as np
import pytest

from bench.cases import CLIPS, SHORT_FILES, Case
from bench.pipeline_report import PipelineWish


@pytest.mark.parametrize(
    ("name", "hours", "turns"),
    [("a file of 2 h", 2.0, 3), ("a file of 4 h", 4.0, 5), (SHORT_FILES, 4.6, 5), (CLIPS, 1.0, 5), ("12 h", 12.0, 1)],
)
def test_what_is_held_to_a_ratio_is_measured_oftener_and_hours_of_audio_once(
    name: str, hours: float, turns: int
) -> None:
    wish = PipelineWish(weights="tiny", device="cpu", hours=(hours,), short_files=50, repeats=3)
    case = Case(name=name, hours=hours, files=(), samples=np.zeros(0, np.int16), windows=())

    assert wish.turns(case) == turns
