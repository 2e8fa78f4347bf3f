"""The table of costs, held to the event that fills it: Pub/Sub refuses a message that does not fit."""

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from schemas.events import CostEvent
from tests.support.deploy.scripts import DEPLOY, ROOT

GOLDEN = sorted((ROOT / "tests" / "golden" / "v1" / "events").glob("cost*.json"))
TYPES = {"STRING": str, "INTEGER": int, "FLOAT": (int, float)}


def columns() -> list[dict[str, Any]]:
    return json.loads((DEPLOY / "bigquery" / "costs.json").read_text())


def misfits(row: dict[str, Any], fields: list[dict[str, Any]], path: str = "") -> list[str]:
    """Return violations of the table's schema by the row; the subscription drops fields that the table lacks."""
    found = []
    for field in fields:
        name, value = path + field["name"], row.get(field["name"])
        if value is None:
            found += [f"{name} is missing"] if field["mode"] == "REQUIRED" else []
        elif field["mode"] == "REPEATED":
            found += [problem for one in value for problem in misfits(one, field["fields"], f"{name}.")]
        elif field["type"] == "RECORD":
            found += misfits(value, field["fields"], f"{name}.")
        elif field["type"] == "TIMESTAMP":
            found += [] if datetime.fromisoformat(value).tzinfo else [f"{name} has no time zone"]
        elif not isinstance(value, TYPES[field["type"]]):
            found.append(f"{name} is a {type(value).__name__}")
    return found


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_every_golden_cost_event_fits_the_table(path: Path) -> None:
    assert misfits(json.loads(path.read_text()), columns()) == []


def test_an_event_that_lacks_a_column_is_noticed() -> None:
    event = json.loads(GOLDEN[0].read_text())
    del event["usd_total"]

    assert misfits(event, columns()) == ["usd_total is missing"]


def test_every_column_is_a_field_of_the_event() -> None:
    assert {column["name"] for column in columns()} - set(CostEvent.model_fields) == set()
