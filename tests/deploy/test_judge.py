"""The build's comparison of the network's tokens with NeMo's."""

import importlib.util
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.support.deploy.scripts import DEPLOY
from worker.embedded.samples import tiny_model

JUDGE = DEPLOY / "image" / "judge.py"
RUN = {"seconds": 1.0, "peak_mib": 100}


@pytest.fixture(scope="module")
def judge() -> ModuleType:
    spec = importlib.util.spec_from_file_location("judge", JUDGE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def judgement(judge: ModuleType, folder: Path, runs: Mapping[str, Any]) -> tuple[int, dict[str, Any]]:
    report = folder / "judged.json"
    status = judge.main(tiny_model(), report, lambda engine, _: runs[engine])
    return status, json.loads(report.read_text())


@pytest.mark.parametrize(("theirs", "status"), [([["▁a", "b"]], 0), ([["▁a", "c"]], 1), ([["▁a"]], 1), ([], 1)])
def test_the_build_ends_where_tokens_differ(judge: ModuleType, tmp_path: Path, theirs: Any, status: int) -> None:
    runs = {"network": {"tokens": [["▁a", "b"]], **RUN}, "nemo": {"tokens": theirs, **RUN}}

    found, report = judgement(judge, tmp_path, runs)

    assert found == status
    assert report["equal"] is (status == 0)


@pytest.mark.parametrize(("nemo", "status"), [("0", 1), ("1", 0)])
def test_a_model_that_the_network_does_not_know_needs_an_image_with_nemo(
    judge: ModuleType, tmp_path: Path, nemo: str, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEMO", nemo)

    found, report = judgement(judge, tmp_path, {"network": {"unsupported": "encoder.subsampling is 'vggnet'"}})

    assert found == status
    assert report["reason"] == "the network does not know the model: encoder.subsampling is 'vggnet'"


def test_without_a_model_there_is_nothing_to_compare(judge: ModuleType, tmp_path: Path) -> None:
    status = judge.main(tmp_path / "parakeet.nemo", tmp_path / "judged.json", None)

    assert status == 0
    assert json.loads((tmp_path / "judged.json").read_text()) == {
        "compared": False,
        "reason": "the image has no model",
    }


@pytest.mark.model
@pytest.mark.timeout(300)
def test_both_engines_give_the_tiny_models_tokens_each_in_a_process_of_its_own(tmp_path: Path) -> None:
    report = tmp_path / "judged.json"

    subprocess.run([sys.executable, JUDGE, tiny_model(), report], check=True, stderr=subprocess.DEVNULL)

    judged = json.loads(report.read_text())
    assert judged["equal"] is True
    assert sum(map(len, judged["network"]["tokens"])) > 100
    assert judged["network"]["peak_mib"] < judged["nemo"]["peak_mib"]
