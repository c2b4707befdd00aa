import numpy as np
import pytest
from small_market import DOWN, UP, bid, case, kw, network, resources

from cosim.domain.market import EnergyBand, RampLimit, StorageLimit
from cosim.errors import MarketError
from cosim.market.clearing import clear
from cosim.market.highs import Highs
from cosim.market.reference import Reference

DAY = [network([60.0, 40.0]), network([80.0, 40.0]), network([60.0, 40.0])]  # 20 A too much in the middle


def storage(**more):
    limits = {"energy_kwh": 10.0, "energy_min_kwh": 0.0, "energy_max_kwh": 50.0, "end_min_kwh": 0.0} | more
    return StorageLimit("P0", (0.0, 0.0, 0.0), **limits, charge_efficiency=0.9, discharge_efficiency=0.8)


BATTERY = [bid("P0 up", [30.0] * 3, 1.0), bid("P0 down", [30.0] * 3, 0.1, DOWN)]


def test_storage_gives_what_it_has():
    cleared = clear(case(BATTERY[:1], DAY, couplings=(storage(),)))
    assert kw(cleared)["P0 up"] == pytest.approx([0.0, 10.0 * 0.8, 0.0])
    assert cleared.unsolved[0].missing_kw == pytest.approx(12.0)


def test_storage_charges_before_it_discharges():
    day = [network([60.0, 0.0]), network([80.0, 40.0]), network([60.0, 40.0])]
    awarded = kw(clear(case(BATTERY, day, couplings=(storage(),))).require_solved())
    assert awarded["P0 up"] == pytest.approx([0.0, 20.0, 0.0])
    assert awarded["P0 down"][0] == pytest.approx((20.0 / 0.8 - 10.0) / 0.9)


def test_storage_ends_with_what_is_asked():
    day = [network([60.0, 0.0]), network([80.0, 40.0]), network([60.0, 0.0])]
    awarded = kw(clear(case(BATTERY, day, couplings=(storage(end_min_kwh=10.0),))).require_solved())
    bought = sum(awarded["P0 down"])
    assert 0.9 * bought == pytest.approx(20.0 / 0.8)


def test_a_schedule_counts_for_stored_energy():
    limit = StorageLimit("P0", (10.0, 0.0, 0.0), 0.0, 0.0, 50.0, 0.0, 0.9, 0.8)
    cleared = clear(case(BATTERY[:1], DAY, couplings=(limit,)))
    assert kw(cleared)["P0 up"] == pytest.approx([0.0, 9.0 * 0.8, 0.0])


@pytest.mark.parametrize("solver", [Highs(), Reference("cbc"), Reference("highs")], ids=["fast", "cbc", "highs"])
def test_a_full_storage_cannot_burn_energy_by_charging_and_discharging_at_once(solver):
    """Reverse flow asks for consumption; only wasting energy in the unit would make room for it."""
    day = [network([-60.0, -60.0])] * 3
    full = storage(energy_kwh=49.0)
    cleared = clear(case(BATTERY[1:], day, couplings=(full,)), solver)
    assert sum(kw(cleared)["P0 down"]) == pytest.approx(1.0 / 0.9, abs=1e-5)
    assert cleared.unsolved
    assert cleared.program.columns.integer.any()


def test_storage_decides_without_integers_where_it_need_not():
    day = [network([60.0, 0.0]), network([80.0, 40.0]), network([60.0, 40.0])]
    assert not clear(case(BATTERY, day, couplings=(storage(),))).program.columns.integer.any()


def test_energy_band_of_a_vehicle():
    """20 kWh by the end, at most 10 kW: what is not drawn in the second hour must be drawn in the others."""
    band = EnergyBand("P0", (5.0, 10.0, 5.0), low_kwh=(0.0, 0.0, 20.0), high_kwh=(10.0, 20.0, 30.0))
    bids = [bid("P0 up", [5.0, 10.0, 5.0], 1.0), bid("P0 down", [5.0, 0.0, 5.0], 0.5, DOWN)]
    day = [network([60.0, 20.0]), network([70.0, 36.0]), network([60.0, 20.0])]
    awarded = kw(clear(case(bids, day, couplings=(band,))).require_solved())
    assert awarded["P0 up"][1] == pytest.approx(6.0)
    assert sum(awarded["P0 down"]) == pytest.approx(6.0)


def test_ramp():
    """After the hour in which 40 less are needed it may return by 25 only: the next hour gives 15 too."""
    ramp = RampLimit("P0", (60.0, 80.0, 80.0), 25.0, before_p_kw=60.0)
    bids = [bid("P0 up", [60.0] * 3, 1.0)]
    day = [network([60.0, 40.0]), network([80.0, 60.0]), network([80.0, 0.0])]
    awarded = np.array(kw(clear(case(bids, day, couplings=(ramp,))).require_solved())["P0 up"])
    power = np.array([60.0, 60.0, 80.0, 80.0]) - np.array([0.0, *awarded])
    assert (np.abs(np.diff(power)) <= 25.0 + 1e-6).all()
    assert awarded == pytest.approx([0.0, 40.0, 15.0])


def test_rows_of_couplings_that_contradict_are_named():
    ramp = RampLimit("P0", (60.0, 80.0, 60.0), 5.0)
    with pytest.raises(MarketError, match="ramp of P0 in MTU"):
        clear(case([bid("P0 up", [1.0] * 3, 1.0)], DAY, couplings=(ramp,)))


class TestRebound:
    def test_paid_back_energy_counts_in_later_mtus(self):
        day = [network([80.0, 40.0]), network([60.0, 35.0]), network([60.0, 35.0])]
        awarded = kw(clear(case([bid("P0 up", [50.0, 0.0, 0.0], 1.0)], day, resources(2, rebound=(0.5, 0.5)))))
        assert awarded["P0 up"][0] > 0.0

    def test_a_rebound_that_congests_again_moves_to_another(self):
        """All of it comes back in the next hour, which is full: the dearer one without a rebound is taken."""
        day = [network([80.0, 40.0]), network([60.0, 40.0])]
        own = resources(1, rebound=(1.0,)) | {"P1": resources(2)["P1"]}
        bids = [bid("P0 up", [50.0, 0.0], 1.0), bid("P1 up", [50.0, 0.0], 5.0)]
        found = kw(clear(case(bids, day, own)).require_solved())
        assert found == {"P0 up": [0.0, 0.0], "P1 up": pytest.approx([20.0, 0.0])}

    def test_a_share_of_one_conserves_energy(self):
        day = [network([80.0, 40.0]), network([60.0, 10.0])]
        cleared = clear(case([bid("P0 up", [50.0, 0.0], 1.0)], day, resources(2, rebound=(1.0,))))
        change = [net.state(cleared.solution.x).delta_kw.sum() for net in cleared.networks]
        assert change == pytest.approx([-20.0, 20.0])


def test_wrong_order_of_directions_would_show():
    """UP in the first hour and nothing else: the resource draws less in it."""
    cleared = clear(case([bid("P0 up", [50.0, 0.0, 0.0], 1.0, UP)], [network([80.0, 40.0])] + DAY[:1] * 2))
    assert cleared.networks[0].state(cleared.solution.x).delta_kw[0] == pytest.approx(-20.0)
