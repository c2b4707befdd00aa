"""Devices as columns of a fleet do what each of them does by itself, bit for bit."""

import json

import numpy as np
from device_strategies import MTU_S, STEPS_S, devices, loads, pvs
from hypothesis import given
from hypothesis import strategies as st

from cosim.flexibility.battery import Battery
from cosim.flexibility.columns import Alike, Each, Held, groups_of
from cosim.flexibility.load import Load
from cosim.flexibility.pv import Pv
from cosim.flexibility.resources import Conditions

N_MTU = 6
fleets = st.lists(st.one_of(loads(), pvs), min_size=1, max_size=6)
floats = st.floats(-50.0, 50.0)


def columns(data, n, values=floats):
    return np.array(data.draw(st.lists(values, min_size=n, max_size=n)))


def in_columns(groups, state, act):
    """What ``act(group, state)`` gives of each group, its arrays put together in the order of the fleet."""
    found = [act(group, each) for group, each in zip(groups, state, strict=True)]
    order = np.argsort(np.concatenate([group.at for group in groups]))
    return [after for after, _ in found], np.concatenate([kw for _, kw in found], axis=-1)[..., order]


@given(fleet=fleets, step_s=STEPS_S, data=st.data())
def test_loads_and_pv_as_columns_draw_and_offer_what_each_does(fleet, step_s, data):
    """Some are held to a change, others are not; what was shed before comes back."""
    groups, single = groups_of(fleet), Each(np.arange(len(fleet)), tuple(fleet))
    assert all(isinstance(group, Alike) for group in groups)
    states, state = [group.start() for group in groups], single.start()
    for mtu in range(N_MTU):
        p_kw, outdoors_c = columns(data, len(fleet)), np.zeros(len(fleet))
        change_kw = columns(data, len(fleet), st.one_of(st.just(np.nan), floats))
        held = Held(np.zeros(len(fleet)), change_kw)
        for begin_s in range(mtu * MTU_S, (mtu + 1) * MTU_S, step_s):

            def stepped(group, each, begin_s=begin_s, p_kw=p_kw, held=held):
                return group.step(each, held.of(group.at), Conditions(begin_s, p_kw[group.at]), step_s)

            states, drawn_kw = in_columns(groups, states, stepped)
            state, each_kw = single.step(state, held, Conditions(begin_s, p_kw, outdoors_c), step_s)
            np.testing.assert_array_equal(drawn_kw, each_kw)
        ahead = [(t, columns(data, len(fleet))) for t in range((mtu + 1) * MTU_S, (mtu + 3) * MTU_S, MTU_S)]
        expected = single.bands(state, [Conditions(t, kw, outdoors_c) for t, kw in ahead], MTU_S, step_s)
        for name in ("baseline_kw", "up_kw", "down_kw"):

            def band(group, each, name=name, ahead=ahead):
                found = group.bands(each, [Conditions(t, kw[group.at]) for t, kw in ahead], MTU_S, step_s)
                return None, getattr(found, name)

            np.testing.assert_array_equal(in_columns(groups, states, band)[1], getattr(expected, name))


@given(fleet=st.lists(devices, max_size=6), data=st.data())
def test_memories_of_groups_survive_json(fleet, data):
    for group in groups_of(fleet):
        n = len(group.at)
        now = Conditions(0, columns(data, n), np.full(n, 5.0))
        state, _ = group.step(group.start(), Held(np.zeros(n), columns(data, n)), now, MTU_S)
        document = json.loads(json.dumps(group.to_json(state)))
        restored = group.from_json(document)
        assert group.to_json(restored) == document
        later = Conditions(MTU_S, now.p_kw, now.temperature_c)
        np.testing.assert_array_equal(
            group.step(restored, None, later, MTU_S)[1], group.step(state, None, later, MTU_S)[1]
        )


@given(fleet=st.lists(devices, max_size=8))
def test_every_device_is_in_one_group(fleet):
    groups = groups_of(fleet)
    assert sorted(k for group in groups for k in group.at.tolist()) == list(range(len(fleet)))
    for group in groups:
        kinds = {type(fleet[k]) for k in group.at.tolist()}
        assert kinds in ({Load}, {Pv}) if isinstance(group, Alike) else not kinds & {Load, Pv}
        assert isinstance(group, Each) or Battery not in kinds
