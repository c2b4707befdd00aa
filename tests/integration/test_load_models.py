"""Runs on feeders with load laws that only OpenDSS knows: the recorded state is that of plain opendssdirect, the
estimate finds what the sites draw, and `cosim check` refuses what `cosim run` does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import opendssdirect
import pytest

from cosim import load_scenario, open_results, run
from cosim.cli import main

SCRIPT = """\
Clear
New Circuit.t basekv=12.47 pu=1.02 bus1=src MVAsc3=500
New Line.l1 bus1=src bus2=b1 r1=0.3 x1=.4 c1=10 c0=5 length=3 units=km
New Transformer.tx phases=3 windings=2 buses=[b1 b2] conns=[delta wye] kvs=[12.47 0.48] kvas=[500 500] xhl=4
New Line.l2 bus1=b2 bus2=b3 r1=0.1 x1=.08 c1=0 c0=0 length=0.1 units=km
New Load.a bus1=b2 kv=0.48 kw=100 kvar=30
{element}
Set voltagebases=[12.47 0.48]
CalcVoltageBases
"""
METER = (
    "{{type: m, number: {k}, {place}, quantities: [p_kw, q_kvar, vm_pu], full_scale: {{p_kw: 1, q_kvar: 1, vm_pu: 1}}}}"
)
YAML = """\
name: t
head: {{branch: Line.l1, end: SRC}}
pods:
  A: {{element: Load.a, kind: load, kw: 100, kvar: 30, profile: constant}}
  Z: {{element: {name}, kind: {kind}, kw: 20, kvar: 8, profile: constant}}
ratings:
  Line.L1: {{i_a: 300}}
meters:
  HEAD: {head}
  B2: {b2}
  B3: {b3}
"""
SCENARIO = """\
name: s
start: 2016-06-30T00:00:00+02:00
duration: 30min
feeder: .
transport: memory
sensors: {faults: {default: {noise: false}}}
estimator: {method: wls}
operator: {enabled: false}
"""
MARKET = ("market={}", "resources={X: {aggregator: agg, pods: [A], load: {curtailable: 0.5}}}")
ZIPV = "zipv=[.5 .2 .3 .5 .1 .4 .5]"
ELEMENTS = {
    "load 3": "Load.z bus1=b3 kv=.48 model=3",
    "load 4": "Load.z bus1=b3 kv=.48 model=4 CVRwatts=0.8 CVRvars=2",
    "load 6": "Load.z bus1=b3 kv=.48 model=6",
    "load 7": "Load.z bus1=b3 kv=.48 model=7",
    "load 8": f"Load.z bus1=b3 kv=.48 model=8 {ZIPV}",
    "load 8 delta": f"Load.z bus1=b3 kv=.48 conn=delta model=8 {ZIPV}",
    "generator 4": "Generator.z bus1=b3 kv=.48 model=4",
    "generator 5": "Generator.z bus1=b3 kv=.48 model=5",
    "generator 7": "Generator.z bus1=b3 kv=.48 model=7",
}


def written(folder: Path, element: str, power: str = "kw=5 kvar=1") -> Path:
    """The scenario on a feeder with an element whose script has other powers than the profiles."""
    name = element.partition(" ")[0]
    places = {"head": "branch: Line.l1, end: SRC", "b2": "bus: B2", "b3": "bus: B3"}
    meters = {key: METER.format(k=k, place=place) for k, (key, place) in enumerate(places.items())}
    (folder / "Master.dss").write_text(SCRIPT.format(element=f"New {element} {power}"))
    kind = name.partition(".")[0].lower()
    (folder / "feeder.yaml").write_text(YAML.format(name=name, kind=kind, **meters))
    (folder / "s.yaml").write_text(SCENARIO)
    return folder / "s.yaml"


def plain(element: str) -> tuple[dict[str, float], np.ndarray]:
    """Voltages [pu] by node and the power [kW, kvar] drawn by Z, by opendssdirect and a script with these powers."""
    dss = opendssdirect.NewContext()
    for command in SCRIPT.format(element=f"New {element} kw=20 kvar=8").splitlines():
        dss.Text.Command(command)
    dss.Text.Command("Solve tolerance=1e-11 maxiterations=200")
    assert dss.Solution.Converged()
    dss.Circuit.SetActiveElement(element.partition(" ")[0])
    drawn = np.asarray(dss.CktElement.Powers()).reshape(-1, 2).sum(axis=0)
    names = [name.upper() for name in dss.Circuit.AllNodeNames()]
    return dict(zip(names, dss.Circuit.AllBusMagPu(), strict=True)), drawn


@pytest.mark.parametrize("case", ELEMENTS)
def test_state_of_opendss_and_estimate_of_what_is_drawn(case: str, tmp_path: Path) -> None:
    scenario = written(tmp_path, ELEMENTS[case])
    volts, drawn = plain(ELEMENTS[case])
    loaded = load_scenario(scenario, ["grid.tolerance_pu=1e-11"])
    with open_results(run(loaded, tmp_path / "s.h5").path) as results:
        found = results.frame("grid/bus/vm_pu")
        np.testing.assert_allclose(found, [[volts[node] for node in found.columns]] * len(found), rtol=0, atol=1e-9)
        for quantity, expected in zip(("p_kw", "q_kvar"), drawn, strict=True):
            true = results.frame(f"grid/pod/{quantity}")
            np.testing.assert_allclose(true["Z"], expected, rtol=0, atol=1e-6)
            estimate = results.frame(f"estimator/wls/{quantity}")
            sites = estimate.rename(columns={"B2": "A", "B3": "Z"})[["A", "Z"]]
            np.testing.assert_allclose(sites, true[["A", "Z"]], rtol=0, atol=0.01)


@pytest.mark.parametrize(
    ("element", "overrides", "said"),
    [
        (ELEMENTS["load 8"], MARKET, "got model=8; allowed: model=1, model=2, model=5, or a run without a market"),
        ("Generator.z bus1=b3 kv=.48 model=3", (), "got model=3; allowed: model=1, model=2, model=4, model=5, model=7"),
        ("Load.z bus1=b3 kv=.48\nNew IndMach012.m bus1=b3 kv=.48 kVA=15", (), "IndMach012.m is no POD and not linear"),
    ],
)
@pytest.mark.parametrize("command", ["check", "run"])
def test_check_refuses_what_run_does(
    command: str,
    element: str,
    overrides: tuple[str, ...],
    said: str,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = [part for override in overrides for part in ("--set", override)]
    power = "kw=5" if "IndMach012" in element else "kw=5 kvar=1"
    assert main([command, str(written(tmp_path, element, power)), *arguments]) == 2
    assert said in capfd.readouterr().err
    assert {path.name for path in tmp_path.iterdir()} == {"Master.dss", "feeder.yaml", "s.yaml"}
