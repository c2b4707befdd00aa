import itertools

import numpy as np
import pytest
from small_market import DOWN, UP, bid, case, kw, network, resources

from cosim.domain.market import EnergyBand, Need, RampLimit, StorageLimit
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
    """Reverse flow asks for consumption; only wasting energy in the unit would make room for it: of one that only sells
    consumption there is none, one that sells both could by selling both at once."""
    day = [network([-60.0, -60.0])] * 3
    full = storage(energy_kwh=49.0)
    for bids, decides in ((BATTERY[1:], False), (BATTERY, True)):
        cleared = clear(case(bids, day, couplings=(full,)), solver)
        awarded = kw(cleared)
        stored_kwh = 0.9 * sum(awarded["P0 down"]) - sum(awarded.get("P0 up", ())) / 0.8
        assert stored_kwh == pytest.approx(1.0, abs=1e-5)
        assert cleared.unsolved
        assert cleared.program.columns.integer.any() == decides


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


class TestStorageWhoseAwardsMayNotBeUsed:
    def cleared(self, day, **more):
        return clear(case(BATTERY, day, couplings=(storage(**more),)))

    def test_what_is_charged_by_an_award_serves_no_other(self):
        """Of the 20 kW asked for in the second hour 8 are there without the award of the first."""
        day = [network([60.0, 0.0]), network([80.0, 40.0]), network([60.0, 40.0])]
        assert self.cleared(day).unsolved == ()
        sure = self.cleared(day, unused_too=True)
        assert kw(sure)["P0 up"] == pytest.approx([0.0, 10.0 * 0.8, 0.0])
        assert kw(sure)["P0 down"] == pytest.approx([0.0, 0.0, 0.0])
        assert sure.unsolved[0].missing_kw == pytest.approx(12.0)

    def test_room_made_by_an_award_serves_no_other(self):
        """In the second hour 20 kW of consumption are asked for, of a storage with room for 5 kWh."""
        day = [network([80.0, 25.0]), network([-60.0, -60.0]), network([60.0, 40.0])]
        full = {"energy_kwh": 45.0}
        found = kw(self.cleared(day, **full))
        assert found["P0 down"][1] == pytest.approx(20.0)
        assert found["P0 up"][0] == pytest.approx((20.0 * 0.9 - 5.0) * 0.8)
        assert kw(self.cleared(day, **full, unused_too=True))["P0 down"][1] == pytest.approx(5.0 / 0.9)

    def test_the_schedule_counts_on_both(self):
        """It charges 9 kWh in the first hour anyway, and must end with 4."""
        limit = StorageLimit("P0", (10.0, 0.0, 0.0), 0.0, 0.0, 50.0, 4.0, 0.9, 0.8, unused_too=True)
        assert kw(clear(case(BATTERY, DAY, couplings=(limit,))))["P0 up"] == pytest.approx([0.0, 5.0 * 0.8, 0.0])

    @pytest.mark.parametrize("seed", range(8))
    def test_whichever_awards_are_used(self, seed):
        rng = np.random.default_rng(seed)
        day = [network([60.0, 40.0 + more]) for more in rng.uniform(-40.0, 0.0, 3)]
        base = tuple(rng.uniform(-1.2, 1.2, 3))
        limit = StorageLimit("P0", base, 10.0, 2.0, 18.0, 5.0, 0.9, 0.8, unused_too=True)
        need = Need("n", "BRP", 0, tuple(rng.uniform(-15.0, 15.0, 3)), max_price_eur_per_kwh=5.0)
        cleared = clear(case(BATTERY, day, couplings=(limit,), needs=(need,)))
        change = np.array([net.state(cleared.solution.x).delta_kw[0] for net in cleared.networks])
        assert np.abs(change).max() > 0.1
        for used in itertools.product((0.0, 0.4, 1.0), repeat=3):
            p_kw = np.array(base) + change * used
            energy = 10.0 + np.cumsum(np.where(p_kw > 0.0, 0.9 * p_kw, p_kw / 0.8))
            assert (energy >= 2.0 - 1e-6).all()
            assert (energy <= 18.0 + 1e-6).all()
            assert energy[-1] >= 5.0 - 1e-6

    def test_it_costs_no_decisions(self):
        day = [network([60.0, 0.0]), network([80.0, 40.0]), network([60.0, 40.0])]
        assert not self.cleared(day, unused_too=True).program.columns.integer.any()
