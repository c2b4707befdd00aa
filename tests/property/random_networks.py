"""Random feeders as OpenDSS scripts and as a clearing sees them: radial or with a loop, balanced or not."""

from dataclasses import dataclass
from functools import cache

import numpy as np
from random_feeders import HEAD, TAIL, WIDE, engine_of, kinds_at, line_script, pod_script

from cosim.grid.unloaded import Unloaded
from cosim.market.feeder_model import FeederModel
from cosim.market.network import NetworkRows

SHAPES = {
    f"{'meshed' if meshed else 'radial'} {'balanced' if balanced else 'unbalanced'}": (meshed, balanced)
    for meshed in (False, True)
    for balanced in (False, True)
}
N_SEED = 60
_SCALE_KW = {1: 60.0, 2: 100.0, 3: 150.0}


@dataclass(frozen=True)
class RandomNetwork:
    """A feeder without its PODs, and a schedule of these (n_pod,) [kW, kvar]."""

    network: Unloaded
    p_kw: np.ndarray
    q_kvar: np.ndarray

    def model(self, share, drop_pu=None, least_a=0.5):
        """Currents may be ``share`` of those at the schedule, at least ``least_a``; voltages as far from the present
        ones as ``drop_pu``."""
        layout, size = self.network.layout, self.magnitudes
        i_a, v_pu = size[: len(layout.conductors)], size[len(layout.conductors) :]
        least = least_a * np.median(i_a[i_a > 1e-3])
        band = np.nan if drop_pu is None else drop_pu
        limits = np.maximum(share * i_a, least), v_pu - band, v_pu + band
        return FeederModel(self.network, "Line.HEAD@SRC", *limits)

    def rows(self, share, drop_pu=None) -> NetworkRows:
        return self.model(share, drop_pu).linearise(0, self.p_kw, self.q_kvar)

    @property
    def magnitudes(self):
        """Currents and voltages at the schedule [A, pu]."""
        layout = self.network.layout
        free = np.full(len(layout.conductors), 1e9), np.zeros(len(layout.nodes)), np.full(len(layout.nodes), 9.0)
        model = FeederModel(self.network, "Line.HEAD@SRC", *free)
        return model.magnitudes(0, self.p_kw[None], self.q_kvar[None])[0]


@cache
def random_network(seed: int, shape: str) -> RandomNetwork:
    """Two to five buses, each with a POD, on the medium voltage or behind a transformer. A loop is a line more between
    two buses; of a balanced network everything has three phases alike."""
    meshed, balanced = SHAPES[shape]
    rng = np.random.default_rng([seed, *SHAPES[shape]])
    script, pods, sizes, phases_of = [HEAD], [], [], {0: (1, 2, 3)}
    for k in range(1, int(rng.integers(2, 6)) + 1):
        parent = int(rng.integers(0, k))
        own = phases_of[parent]
        keeps = balanced or rng.random() < 0.5
        phases_of[k] = own if keeps else tuple(sorted(rng.permutation(own)[: rng.integers(1, len(own) + 1)].tolist()))
        script.append(line_script(f"L{k}", f"B{parent}", f"B{k}", phases_of[k], float(rng.uniform(0.5, 4.0))))
        bus, kv = f"B{k}", 20.0
        if len(phases_of[k]) == 3 and rng.random() < 0.4:
            script.append(f"New Transformer.T{k} buses=[B{k} V{k}] conns=[delta wye] kVs=[20 0.4] kVAs=[400 400] XHL=4")
            bus, kv = f"V{k}", 0.4
        fitting = [kind for kind in kinds_at(phases_of[k]) if kind[1] == 3 or not balanced]
        kind = fitting[int(rng.integers(len(fitting)))]
        script.append(pod_script(f"P{k}", bus, kind, phases_of[k], kv, WIDE))
        role = "load" if kind[0] == "Load" else "generator"
        pods.append(f"  P{k}: {{element: {kind[0]}.P{k}, kind: {role}, kw: 1, profile: constant}}")
        sizes.append(_SCALE_KW[kind[1]])
    if meshed:
        script.append(_tie(phases_of, rng))
    p_kw = rng.uniform(0.3, 1.0, len(sizes)) * np.where(rng.random(len(sizes)) < 0.3, -1.0, 1.0) * sizes
    q_kvar = p_kw * rng.uniform(0.0, 0.5, len(sizes))
    yaml = "name: random\nhead: {branch: Line.HEAD, end: SRC}\npods:\n" + "\n".join(pods) + "\n"
    engine = engine_of("\n".join([*script, TAIL]), yaml)
    network = engine.unloaded()
    engine.close()
    return RandomNetwork(network, p_kw, q_kvar)


def _tie(phases_of, rng):
    """A line between two buses, of the phases that both have."""
    pairs = [
        (a, b, common)
        for a in phases_of
        for b in phases_of
        if a < b and (common := tuple(p for p in phases_of[a] if p in phases_of[b]))
    ]
    a, b, common = pairs[int(rng.integers(len(pairs)))]
    return line_script("TIE", f"B{a}", f"B{b}", common, float(rng.uniform(0.5, 4.0)))
