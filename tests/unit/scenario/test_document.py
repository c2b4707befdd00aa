"""Documents of any model: the wording and place of their faults."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import pytest
from pydantic import BaseModel, ConfigDict, Field

from cosim.errors import FeederError
from cosim.scenario import document
from cosim.scenario.document import read_document


class Element(BaseModel):
    model_config = ConfigDict(extra="forbid")
    rating: Annotated[float, Field(gt=0.0), "number"] = Field(description="rated power [kW]")
    tap: int | str = Field(0, description="tap")


class Network(BaseModel):
    model_config = ConfigDict(extra="forbid")
    elements: tuple[Element, ...] = ()


def test_document_of_another_model_and_error(tmp_path: Path) -> None:
    path = tmp_path / "n.yaml"
    path.write_text("elements:\n  - rating: 5\n  -\n    rating: 0\n    ratting: 1\n    tap: [1]\n")
    with pytest.raises(FeederError) as caught:
        read_document(path, FeederError).validate(Network, FeederError)
    first, misspelt, *_, last = sorted(
        caught.value.faults, key=lambda fault: (fault.key != "elements.1.rating", fault.line)
    )
    assert str(first) == f"{path}:4: elements.1.rating: out of range; got 0; allowed: number, above 0: rated power [kW]"
    assert (misspelt.line, misspelt.key, misspelt.problem) == (
        5,
        "elements.1.ratting",
        "unknown key; did you mean rating?",
    )
    assert (last.line, last.key) == (6, "elements.1.tap")


def test_valid_document(tmp_path: Path) -> None:
    path = tmp_path / "n.yaml"
    path.write_text("elements: [{rating: 1e-8, tap: off}]\n")
    assert read_document(path, FeederError).validate(Network, FeederError).elements[0].tap == "off"


@pytest.mark.parametrize("folder", ["scenarios", "dss_models"])
def test_the_fast_reader_reads_what_the_careful_one_does(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever a key is written, and whatever it says."""
    files = sorted((Path(__file__).resolve().parents[3] / folder).rglob("*.yaml"))
    assert len(files) > 5
    fast = [read_document(path, FeederError) for path in files]
    monkeypatch.setattr(document, "_FastLoader", document._Loader)
    for path, found in zip(files, fast, strict=True):
        assert found == read_document(path, FeederError), path.name
