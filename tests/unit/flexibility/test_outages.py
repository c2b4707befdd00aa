import numpy as np
import pytest

from cosim.flexibility.outages import DeliveryRisk, Stream, delivered_share, out_of_reach

QUARTER_S = 900
STREAM = Stream(7, "A", "R1")


def states(risk, stream, n):
    """Whether out of reach in consecutive MTUs."""
    found, before = [], None
    for mtu in range(n):
        before = out_of_reach(risk, stream, mtu, QUARTER_S, before)
        found.append(before)
    return np.array(found)


def test_without_risk_all_is_delivered():
    risk = DeliveryRisk()
    assert delivered_share(risk, STREAM, 3) == 1.0
    assert not states(risk, STREAM, 50).any()


def test_what_is_missing_is_uniform_up_to_the_shortfall():
    risk = DeliveryRisk(shortfall=0.2)
    shares = np.array([delivered_share(risk, STREAM, mtu) for mtu in range(2000)])
    assert ((shares >= 0.8) & (shares <= 1.0)).all()
    np.testing.assert_allclose(np.quantile(shares, [0.25, 0.5, 0.75]), [0.85, 0.9, 0.95], atol=0.01)


def test_outages_last_and_come_as_stated():
    risk = DeliveryRisk(between_outages_h=6.0, outage_h=1.5)
    out = states(risk, STREAM, 20_000)
    begins = np.flatnonzero(out[1:] & ~out[:-1])
    ends = np.flatnonzero(~out[1:] & out[:-1])
    mean_out = 1.0 / -np.expm1(-0.25 / 1.5)  # MTUs, of a process that is looked at every MTU
    mean_in = 1.0 / -np.expm1(-0.25 / 6.0)
    assert out.mean() == pytest.approx(mean_out / (mean_out + mean_in), abs=0.02)
    assert out.sum() / len(begins) == pytest.approx(mean_out, rel=0.1)
    assert abs(len(begins) - len(ends)) <= 1


def test_at_the_start_an_outage_is_as_likely_as_ever():
    risk = DeliveryRisk(between_outages_h=2.0, outage_h=2.0)
    first = [out_of_reach(risk, Stream(1, "A", f"R{k}"), 0, QUARTER_S, None) for k in range(2000)]
    assert np.mean(first) == pytest.approx(0.5, abs=0.04)


def test_a_draw_is_the_same_whatever_else_is_drawn_and_its_own_for_each_resource():
    risk = DeliveryRisk(shortfall=1.0)
    alone = delivered_share(risk, STREAM, 5)
    others = {delivered_share(risk, Stream(7, "A", name), 5) for name in ("R2", "R3")}
    others |= {delivered_share(risk, Stream(7, "B", "R1"), 5), delivered_share(risk, STREAM, 6)}
    assert delivered_share(risk, STREAM, 5) == alone
    assert alone not in others
    assert len(others) == 4
