"""The picture of a feeder."""

import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import matplotlib.image
import numpy as np
import pytest

from cosim.errors import CosimError, InputError
from cosim.grid.feeder import load_feeder
from cosim.grid.inventory import take_stock
from cosim.report import feeder_map
from cosim.report.feeder_map import _widths_pt, draw
from cosim.scenario.schema import GridConfig

FEEDERS = Path(__file__).parents[3] / "dss_models"


@pytest.fixture(scope="module")
def mv5():
    return take_stock(load_feeder(FEEDERS / "mv5"), GridConfig())


@pytest.fixture(scope="module")
def ieee123():
    return take_stock(load_feeder(FEEDERS / "ieee123"), GridConfig())


def words_of(stock, folder):
    """All text of the picture as SVG."""
    out = folder / "picture.svg"
    draw(stock, out)
    return [element.text for element in ElementTree.parse(out).iter() if element.tag.endswith("}text")]


def test_small_feeder_names_every_bus_and_the_extremes(mv5, tmp_path):
    words = words_of(mv5, tmp_path)
    lowest, highest = int(np.argmin(mv5.vm_pu)), int(np.argmax(mv5.vm_pu))
    extremes = {
        f"{mv5.buses[lowest]}, lowest {mv5.vm_pu[lowest]:.4f} pu",
        f"{mv5.buses[highest]}, highest {mv5.vm_pu[highest]:.4f} pu",
    }
    others = {bus for k, bus in enumerate(mv5.buses) if k not in (lowest, highest)}
    assert extremes | others | {"source", "transformer"} <= set(words)
    assert "mv5: 12 buses, 5 lines of 11.1 km, 6 transformers" in words
    assert not {"regulator", "capacitor", "switch", "open", "1-phase"} & set(words)


def test_legend_and_zones_of_an_unbalanced_feeder(ieee123, tmp_path):
    words = set(words_of(ieee123, tmp_path))
    shown = {"source", "transformer", "regulator", "capacitor", "switch", "open", "1-phase", "2-phase", "3-phase"}
    assert shown <= words
    assert set(ieee123.feeder.file.zones) <= words
    assert any("lowest phase" in word for word in words)
    named = [bus for bus in ieee123.buses if bus in words]
    assert len(named) > 0.9 * len(ieee123.buses)


def test_same_feeder_same_bytes(mv5, tmp_path):
    for suffix in ("svg", "png", "pdf"):
        first, second = tmp_path / f"first.{suffix}", tmp_path / f"second.{suffix}"
        draw(mv5, first)
        draw(mv5, second)
        assert first.read_bytes() == second.read_bytes()


def test_picture_is_white_and_has_the_colours_of_its_voltages(mv5, tmp_path):
    draw(mv5, tmp_path / "a.png")
    image = matplotlib.image.imread(tmp_path / "a.png")
    assert image.shape[1] == 2000
    assert (image[0, 0] == 1.0).all()
    lowest = matplotlib.colormaps["viridis"](0.0)[:3]
    assert (np.abs(image[..., :3] - lowest).max(axis=-1) < 0.02).sum() > 300


def test_labels_do_not_cover_each_other(ieee123, tmp_path, monkeypatch):
    placed = []

    class Watched(feeder_map.Labels):
        def put(self, *arguments, **look):
            there = super().put(*arguments, **look)
            placed[:] = self._boxes
            return there

    monkeypatch.setattr(feeder_map, "Labels", Watched)
    draw(ieee123, tmp_path / "a.png")
    boxes = np.array(placed)
    assert len(boxes) > 100
    low, high = boxes[:, :2], boxes[:, 2:]
    overlap = ((low[:, None] < high[None]) & (low[None] < high[:, None])).all(axis=-1)
    assert overlap.sum() == len(boxes)


def test_without_voltages_the_picture_says_why(mv5, tmp_path):
    words = words_of(replace(mv5, base=None, failure="it does not converge"), tmp_path)
    assert any("No voltages: it does not converge" in word for word in words)
    assert not any(re.search(r"lowest|highest", word) for word in words)


def test_without_coordinates_the_picture_says_so(ieee123, tmp_path):
    assert not any("No coordinates" in word for word in words_of(ieee123, tmp_path))
    bare = replace(ieee123, xy=np.full_like(ieee123.xy, np.nan))
    assert any("No coordinates" in word for word in words_of(bare, tmp_path))


def test_degrees_are_stretched_to_their_length_on_earth(mv5, tmp_path):
    heights = []
    for latitude in (0.0, 60.0):
        share = np.linspace(0.0, 1.0, len(mv5.buses))
        draw(replace(mv5, xy=np.column_stack((0.4 * share, latitude + 0.1 * share**2))), tmp_path / "a.png")
        heights.append(matplotlib.image.imread(tmp_path / "a.png").shape[0])
    frame = 200 * 1.3
    assert (heights[1] - frame) / (heights[0] - frame) == pytest.approx(2.0, rel=0.01)


def test_lines_are_thicker_with_phases_or_current(ieee123, mv5):
    widths = {edge.branch: width for edge, width in zip(ieee123.edges, _widths_pt(ieee123), strict=True)}
    phases = {edge.branch: edge.phases for edge in ieee123.edges}
    one, two, three = (next(branch for branch, count in phases.items() if count == n) for n in (1, 2, 3))
    assert widths[one] < widths[two] < widths[three]
    lines = [k for k, edge in enumerate(mv5.edges) if edge.kind == "line"]
    order = np.argsort(mv5.base.edge_a[lines])
    assert (np.diff(_widths_pt(mv5)[lines][order]) > 0.0).all()


def test_refused(mv5, tmp_path):
    with pytest.raises(InputError, match=r"a\.jpg; allowed: \.pdf, \.png, \.svg"):
        draw(mv5, tmp_path / "a.jpg")
    with pytest.raises(CosimError, match="cannot write the picture"):
        draw(mv5, tmp_path / "nowhere" / "a.png")
