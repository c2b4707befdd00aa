"""Pages of the documentation are executed, block by block, each in an empty folder."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from cosim.cli import main

ROOT = Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"(?:^`(?P<file>[\w.]+)`:\n\n)?^```(?P<language>\w+)\n(?P<text>.*?)^```", re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize(
    ("page", "results"),
    [("tutorial.md", ["both.html"]), ("bring_your_own_feeder.md", ["street.svg", "street.h5", "village.png"])],
)
def test_every_block_runs(page: str, results: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    session: dict[str, object] = {}
    executed = 0
    for block in BLOCK.finditer((ROOT / "docs" / page).read_text()):
        language, text = block["language"], block["text"]
        if block["file"]:
            (tmp_path / block["file"]).write_text(text.replace("SCENARIOS", str(ROOT / "scenarios")))
        elif language == "sh":
            for line in text.splitlines():
                program, *arguments = shlex.split(line)
                assert program == "cosim"
                assert main(arguments) == 0, line
        else:
            assert language == "python"
            exec(compile(text, page, "exec"), session)
        executed += 1
    assert executed >= 8
    for name in results:
        assert (tmp_path / name).stat().st_size > 10_000, name
