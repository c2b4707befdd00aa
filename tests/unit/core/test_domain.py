from dataclasses import FrozenInstanceError

import numpy as np
import pytest

from cosim.domain.frames import Signal, frozen
from cosim.domain.grid import GridLayout
from cosim.domain.measurement import QUANTITIES, Channel, Place, Quality


def test_frozen_copies_and_cannot_be_written():
    given = np.array([1.0, 2.0])
    array = frozen(given)
    given[0] = 9.0
    assert array[0] == 1.0
    with pytest.raises(ValueError, match="read-only"):
        array[0] = 5.0
    assert frozen([1, 0], np.int8).dtype == np.int8


def test_records_cannot_be_changed():
    place = Place(bus="A")
    with pytest.raises(FrozenInstanceError):
        place.bus = "B"


def test_coded_signals_are_small_integers():
    assert Signal("p_kw", "kW", "power", "pod", ("A",)).dtype == np.float64
    assert Signal("converged", "1", "converged", "feeder", ("f",), codes=("no", "yes")).dtype == np.int8


def test_buses_in_the_order_of_nodes():
    none = np.zeros(0, dtype=np.int64)
    layout = GridLayout(("B.1", "B.2", "A.1", "X.Y.1"), (), (), none, (), none, none, np.zeros(0))
    assert layout.buses == ("B", "A", "X.Y")


def test_places_in_words():
    assert str(Place(bus="LV1")) == "bus LV1"
    assert str(Place(branch="Line.L1", end="MV0")) == "branch Line.L1 at MV0"
    assert str(Place(storage="S")) == "storage S"


def test_every_quantity_has_a_unit():
    units = [Channel("m", f"m/0/{quantity}", quantity, Place(bus="A"), 1.0).unit for quantity in QUANTITIES]
    assert units == ["kW", "kvar", "pu", "A", "kWh"]


def test_the_codes_of_quality_are_those_in_result_files():
    assert [quality.name for quality in sorted(Quality)] == ["GOOD", "MISSING", "LATE"]
    assert list(Quality) == [0, 1, 2]
