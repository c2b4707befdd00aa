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
    [
        ("tutorial.md", ["both.html"]),
        ("bring_your_own_feeder.md", ["street.svg", "street.h5", "village.png"]),
        ("market.md", ["both.html"]),
        ("analysis.md", ["voltages.csv", "head.parquet"]),
    ],
)
def test_every_block_runs(
    page: str,
    results: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    session: dict[str, object] = {}
    executed, printed = 0, ""
    for block in BLOCK.finditer((ROOT / "docs" / page).read_text()):
        language, text = block["language"], block["text"]
        if language == "text":
            assert_printed(text, printed)
        elif block["file"]:
            (tmp_path / block["file"]).write_text(text.replace("SCENARIOS", str(ROOT / "scenarios")))
        elif language == "sh":
            for line in text.splitlines():
                program, *arguments = shlex.split(line)
                assert program == "cosim"
                assert main(arguments) == 0, line
        else:
            assert language == "python"
            exec(compile(text, page, "exec"), session)
        executed, printed = executed + 1, capsys.readouterr().out
    assert executed >= 8
    for name in results:
        assert (tmp_path / name).stat().st_size > 5_000, name  # more than an empty page


def assert_printed(lines: str, printed: str) -> None:
    """Each of ``lines`` begins a line that the block before printed, whatever the spaces, in this order."""
    rest = iter([" ".join(line.split()) for line in printed.splitlines()])
    for line in lines.splitlines():
        wanted = " ".join(line.split())
        assert any(found.startswith(wanted) for found in rest), f"{wanted!r} was not printed:\n{printed}"
