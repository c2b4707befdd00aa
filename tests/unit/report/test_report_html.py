"""The report file: self-contained, escaped, the same bytes for the same input, whatever the run left."""

import re
from html.parser import HTMLParser
from pathlib import Path

import matplotlib
import pytest
from small_result import NASTY, bare_file, killed_file, large_file, result_file

from cosim.errors import ResultError
from cosim.report.html import write_report

VOID = {"meta", "br", "img", "hr", "link", "input", "path", "rect", "circle", "use", "image"}


class Page(HTMLParser):
    """Tags that are open, ids, and the text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.text = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self.ids += [value for name, value in attrs if name == "id" and value]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def report(out: Path, *paths: Path) -> str:
    write_report(paths, out)
    return out.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("report")
    return report(folder / "page" / "run.html", result_file(folder / "run.h5"))


def test_needs_nothing_but_a_browser(page: str) -> None:
    parsed = Page(page)
    assert parsed.open == []
    assert not parsed.tags & {"script", "link", "iframe", "object"}
    assert not re.search(r"https?:|//[a-z]|@import|url\((?!#)", re.sub(r"base64,[^\"]*", "", page))
    assert not [name for name in parsed.attributes if name.startswith("on")]
    assert all(link.startswith(("#", "data:image/png;base64,")) for link in re.findall(r'(?:href|src)="([^"]*)"', page))


def test_shows_what_it_should(page: str) -> None:
    text = Page(page).text
    for part in (
        "deepest head power",
        "Head power",
        "Storage",
        "Voltages by node",
        "Highest loadings",
        "Unmetered sites",
        "Estimation error",
        "Measurement quality",
        "Orders (2)",
        "Resolved scenario",
        "2016-07-22 00:00 to 2016-07-24 00:00, UTC+01:00",
        "two days <i>in</i> July",
        "without orders",
        "wls (used by the operator)",
    ):
        assert part in text, part
    assert 'role="alert"' not in page


def test_escapes_all_names(page: str) -> None:
    assert Page(page).text.count(NASTY) >= 3
    assert not Page(page).tags & {"b", "i"}


def test_colours_follow_the_page(page: str) -> None:
    assert "prefers-color-scheme: dark" in page
    figures = "".join(re.findall(r"<figure>.*?</figure>", page, flags=re.DOTALL))
    assert "var(--blue)" in figures
    assert not re.search(r"(?:stroke|fill): #", figures)


def test_ids_and_what_refers_to_them(page: str) -> None:
    ids = Page(page).ids
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'(?:href="#|url\(#)([^")]+)', page)) <= set(ids)


def test_same_input_same_bytes(tmp_path: Path, page: str) -> None:
    again = report(tmp_path / "run.html", result_file(tmp_path / "run.h5"))
    assert again == page


def test_leaves_matplotlib_as_it_was(tmp_path: Path) -> None:
    path = result_file(tmp_path / "run.h5")
    before = settings()
    write_report([path], tmp_path / "run.html")
    assert settings() == before


def test_does_not_depend_on_the_user_s_matplotlib(tmp_path: Path, page: str) -> None:
    with matplotlib.rc_context({"font.size": 20.0, "axes.facecolor": "red", "lines.linewidth": 9.0}):
        assert report(tmp_path / "run.html", result_file(tmp_path / "run.h5")) == page


def settings() -> dict[str, object]:
    """All but the backend: to look at it would choose one."""
    return {str(name): matplotlib.rcParams[name] for name in matplotlib.rcParams if name != "backend"}


def test_several_results(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    paths = [result_file(tmp_path / "run.h5"), result_file(tmp_path / "other" / "run.h5", name="second")]
    paths.append(killed_file(tmp_path / "killed.h5"))
    page = report(tmp_path / "all.html", *paths)
    parsed = Page(page)
    assert parsed.open == []
    assert len(parsed.ids) == len(set(parsed.ids))
    for part in ("3 results compared", "run (1)", "run (2): second", "killed: demo", "Stored energy"):
        assert part in parsed.text, part
    row = re.search(r"<tr><th>orders</th>(.*?)</tr>", page, flags=re.DOTALL)
    assert row is not None
    assert re.findall(r'<td class="n main">(\d+)', row[1]) == ["2", "2", "1"]
    assert page.count('role="alert"') == 2  # above the comparison, and in the run's own part


def test_killed_run(tmp_path: Path) -> None:
    text = Page(report(tmp_path / "run.html", killed_file(tmp_path / "run.h5"))).text
    assert "has not ended, or its process was killed: 5 of 8 steps were recorded, until 2016-07-23 06:00" in text


def test_failed_run_without_storage_methods_or_values(tmp_path: Path) -> None:
    page = report(tmp_path / "run.html", bare_file(tmp_path / "run.h5"))
    text = Page(page).text
    assert "This run failed: 3 steps were recorded" in text
    assert f"power flow: {NASTY}" in text
    assert "Head power" in text
    assert "Unmetered sites" not in text


@pytest.mark.parametrize("steps", [0, 1])
def test_hardly_any_steps(tmp_path: Path, steps: int) -> None:
    text = Page(report(tmp_path / "run.html", bare_file(tmp_path / "run.h5", steps))).text
    assert f"This run failed: {steps} steps were recorded" in text
    assert ("No step was recorded" in text) == (steps == 0)


def test_long_run_of_a_large_feeder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = large_file(tmp_path / "run.h5")
    page = report(tmp_path / "run.html", path)
    text = Page(page).text
    for part in (
        "a point stands for 2 h; filled is its range",
        "all 8 units",
        "10 more branches are loaded at most",
        "The 6 sites with the largest error; 2 more are in the table",
        "A cell shows the value furthest from 1 pu in it",
        "full colour is 50.0 % of its values missing or late",
    ):
        assert part in text, part
    assert len(page) < 1_000_000
    monkeypatch.setattr("cosim.report.reading._BLOCK_VALUES", 100_000)
    assert report(tmp_path / "blocks.html", path) == page


def test_not_a_result(tmp_path: Path) -> None:
    with pytest.raises(ResultError, match="there is no such file"):
        write_report([tmp_path / "none.h5"], tmp_path / "out.html")
    assert not (tmp_path / "out.html").exists()


def test_does_not_overwrite_a_result(tmp_path: Path) -> None:
    path = result_file(tmp_path / "run.h5")
    before = path.read_bytes()
    with pytest.raises(ResultError, match="would take the place of a result file"):
        write_report([path], path)
    assert path.read_bytes() == before


def test_cannot_be_written(tmp_path: Path) -> None:
    path = bare_file(tmp_path / "run.h5")
    (tmp_path / "out.html").mkdir()
    with pytest.raises(ResultError, match=r"out\.html: cannot write the report: Is a directory"):
        write_report([path], tmp_path / "out.html")


def test_a_report_that_cannot_be_written_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, *_: object, **__: object) -> None:
        path.write_bytes(b"<ht")
        raise OSError(28, "No space left on device")

    out, result = tmp_path / "report.html", bare_file(tmp_path / "run.h5")
    out.write_text("old")
    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(ResultError, match="cannot write the report: No space left on device"):
        write_report([result], out)
    assert (out.read_bytes(), list(tmp_path.glob("*.part"))) == (b"old", [])
