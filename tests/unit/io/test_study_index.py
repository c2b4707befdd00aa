"""The index of a study: kinds of columns, order, and that it is written in one piece."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest

from cosim.errors import ResultError
from cosim.io.study_index import read_index, write_index

TOLD = {"seed": 1, "status": "complete", "error": "", "path": "0-a.h5", "hash": "aa", "wall_s": 1.5}


def rows(key: str, values: list[Any]) -> list[dict[str, Any]]:
    return [{"run": k, key: value, **TOLD} for k, value in enumerate(values)]


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ([1, 2], [1, 2]),
        ([1, 0.5], [1.0, 0.5]),
        (["15min", "1h"], ["15min", "1h"]),
        ([True, False], [True, False]),
        ([1, "auto"], ["1", '"auto"']),
        ([{"b": 1, "a": [2]}, None], ['{"a": [2], "b": 1}', None]),
        ([1, True], ["1", "true"]),
        ([1, 2**63], ["1", str(2**63)]),
        ([0.5, 10**400], ["0.5", str(10**400)]),
    ],
)
def test_a_column_is_of_one_kind(tmp_path: Path, values: list[Any], found: list[Any]) -> None:
    written = rows("operator.x", values)
    path = write_index(tmp_path, "mine", ["operator.x"], written)
    back = read_index(tmp_path)
    assert [row["operator.x"] for row in back] == found
    assert [type(row["operator.x"]) for row in back] == [type(value) for value in found]
    table = pd.read_parquet(path)
    assert list(table.columns) == ["run", "operator.x", *TOLD]
    about = json.loads(pq.read_schema(path).metadata[b"cosim"])
    assert about == {"study": "mine", "varied": ["operator.x"], "format_version": 1}
    assert [entry.name for entry in tmp_path.iterdir()] == ["index.parquet"]


def test_seed_may_be_what_varies(tmp_path: Path) -> None:
    write_index(tmp_path, "mine", ["seed", "b"], [{"run": 0, "b": 2, **TOLD}])
    assert list(read_index(tmp_path)[0]) == ["run", "seed", "b", "status", "error", "path", "hash", "wall_s"]


def test_index_that_is_not_there_or_not_ours(tmp_path: Path) -> None:
    assert read_index(tmp_path) == []
    (tmp_path / "index.parquet").write_text("half")
    assert read_index(tmp_path) == []
    pd.DataFrame({"run": [1]}).to_parquet(tmp_path / "index.parquet")
    assert read_index(tmp_path) == []


def test_index_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    write_index(tmp_path, "mine", [], rows("x", [1]))
    before = (tmp_path / "index.parquet").read_bytes()
    (tmp_path / ".index.parquet.part").mkdir()
    with pytest.raises(ResultError, match=r"index\.parquet: the index cannot be written: "):
        write_index(tmp_path, "mine", [], rows("x", [1, 2]))
    assert (tmp_path / "index.parquet").read_bytes() == before
