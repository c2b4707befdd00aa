"""Short runs with a local market: midday on mv5 with one transformer near its limit, and a line of constant loads."""

from __future__ import annotations

from pathlib import Path

from short_runs import EXACT, short_run

from cosim import load_scenario, run
from cosim.runner import Finished
from cosim.scenario.load import LoadedScenario

MIDDAY = (
    "start=2016-07-21T11:00:00+01:00",
    "duration=2h",
    "sensors.meters=[HEAD, SS1, SS3, SS4]",
    "operator={enabled: false, thresholds_kw: auto}",
    "limits.derated={Transformer.T4: 0.4}",
    "resources.roofs={pods: all_pv, pv: {}, down_eur_per_kwh: 0.12, price_spread: 0.3}",
    "market={}",
)

LINE = """\
Clear
New Circuit.line bus1=SRC basekV=20 pu=1.0 phases=3 MVAsc3=2000 MVAsc1=2000
New Line.L1 bus1=SRC bus2=A phases=3 R1=0.1 X1=0.1 R0=0.3 X0=0.3 C1=0 C0=0 Length=4 Units=km
New Load.A bus1=A phases=3 kV=20 kW=1000 PF=1 model=1 Vminpu=0.8 Vmaxpu=1.2
Set VoltageBases=[20]
CalcVoltageBases
"""
LINE_YAML = """\
name: line
head: {branch: Line.L1, end: SRC}
pods:
  A: {element: Load.A, kind: load, kw: 1000, profile: constant}
ratings: {Line.L1: {i_a: 20.643}}
meters:
  A:
    {type: sub, number: 1, bus: A, quantities: [p_kw, q_kvar], class_percent: 0.1,
     full_scale: {p_kw: 1000, q_kvar: 1000}}
"""
LINE_SCENARIO = """\
name: line
start: 2016-07-21T00:00:00+00:00
duration: 2h
feeder: line
transport: memory
sensors: {faults: {default: {noise: false}}}
estimator: {method: wls}
operator: {enabled: false}
resources: {load: {pods: [A], load: {curtailable: 0.5}}}
dso: {forecast: {method: persistence}}
market: {}
"""


def midday(out: Path, *overrides: str) -> Finished:
    """The main scenario around noon, of which the PV at substation 4 is too much for its transformer."""
    return short_run(out, *EXACT, *MIDDAY, *overrides)


def line(folder: Path, *overrides: str, text: str = LINE_SCENARIO) -> LoadedScenario:
    """A load of 1000 kW at the end of a line that can carry 714 kW."""
    feeder = folder / "line"
    feeder.mkdir(parents=True)
    (feeder / "Master.dss").write_text(LINE)
    (feeder / "feeder.yaml").write_text(LINE_YAML)
    (folder / "line.yaml").write_text(text)
    return load_scenario(folder / "line.yaml", overrides)


def constant_line(folder: Path, *overrides: str, text: str = LINE_SCENARIO) -> Finished:
    return run(line(folder, *overrides, text=text), folder / "line.h5")
