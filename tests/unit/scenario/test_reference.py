"""The generated page on scenarios."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel

from cosim.scenario import schema
from cosim.scenario.reference import scenario_reference

PAGE = Path(__file__).parents[3] / "docs" / "scenario.md"


def test_committed_page_is_up_to_date() -> None:
    message = "regenerate by: python -m cosim.scenario.reference > docs/scenario.md"
    assert PAGE.read_text(encoding="utf-8") == scenario_reference(), message


def test_every_field_is_described_and_on_the_page() -> None:
    parts = [part for part in vars(schema).values() if isinstance(part, type) and issubclass(part, schema.Part)]
    fields = {(part.__name__, name): field for part in parts for name, field in part.model_fields.items()}
    assert len(fields) > 80
    assert [place for place, field in fields.items() if not field.description] == []
    page = scenario_reference()
    assert [place for place in fields if f"| `{place[1]}` |" not in page] == []


def test_defaults_of_a_part_are_those_of_its_parent() -> None:
    page = scenario_reference()
    sizing = page.split("## `operator.sizing.genetic`")[1]
    assert "| `population` | whole number, at least 8 | `40` | individuals |" in sizing
    assert "| `step` | duration such as 15min, 2h, 3d | `15min` |" in page


def test_parts_are_frozen_and_refuse_unknown_keys() -> None:
    parts = [part for part in vars(schema).values() if isinstance(part, type) and issubclass(part, BaseModel)]
    own = [part for part in parts if part.__module__ == schema.__name__]
    assert own
    assert all(part.model_config.get("frozen") and part.model_config.get("extra") == "forbid" for part in own)
