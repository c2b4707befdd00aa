"""docs/tutorial.md is executed, block by block, in an empty folder."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from cosim.cli import main

ROOT = Path(__file__).resolve().parents[2]


def test_every_block_of_the_tutorial_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    session: dict[str, object] = {}
    blocks = re.findall(r"```(\w+)\n(.*?)```", (ROOT / "docs/tutorial.md").read_text(), flags=re.DOTALL)
    for language, text in blocks:
        if language == "yaml":
            (tmp_path / "noon.yaml").write_text(text.replace("SCENARIOS", str(ROOT / "scenarios")))
        elif language == "sh":
            for line in text.splitlines():
                program, *arguments = shlex.split(line)
                assert program == "cosim"
                assert main(arguments) == 0, line
        else:
            exec(compile(text, "docs/tutorial.md", "exec"), session)
    assert [language for language, _ in blocks].count("python") >= 4
    assert (tmp_path / "both.html").stat().st_size > 10_000
