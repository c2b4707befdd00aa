"""Small feeders written into a folder: a plain line, and one with a regulator and a switched capacitor."""

from pathlib import Path

from cosim.grid.engine import Engine
from cosim.grid.feeder import load_feeder
from cosim.scenario.schema import GridConfig

MV5 = Path(__file__).parents[3] / "dss_models" / "mv5"
CONFIG = GridConfig()

LINE = """\
Clear
New Circuit.line bus1=SRC basekV=20 pu=1.0 phases=3 MVAsc3=2000 MVAsc1=2000
New Line.L1 bus1=SRC bus2=A phases=3 R1=0.3 X1=0.3 R0=0.9 X0=0.9 C1=200 C0=200 Length=4 Units=km
New Line.L2 bus1=A bus2=B phases=3 R1=0.3 X1=0.3 R0=0.9 X0=0.9 C1=200 C0=200 Length=3 Units=km
New Load.A bus1=A phases=3 kV=20 kW=1000 PF=0.95 model=1 Vminpu=0.8 Vmaxpu=1.2
New Load.B bus1=B phases=3 kV=20 kW=500 PF=0.95 model=1 Vminpu=0.8 Vmaxpu=1.2
New Storage.S bus1=B phases=3 kV=20 kWrated=300 kVA=300 kWhrated=600 %reserve=20 %EffCharge=90 %EffDischarge=80
~ %IdlingkW=1 State=idling DispMode=external Vminpu=0.7 Vmaxpu=1.3
Set VoltageBases=[20]
CalcVoltageBases
"""

LINE_YAML = """\
name: line
head: {branch: Line.L1, end: SRC}
pods:
  A.load: {element: Load.A, kind: load, kw: 1000, power_factor: 0.95, profile: constant}
  B.load: {element: Load.B, kind: load, kw: 500, power_factor: 0.95, profile: constant}
  B.battery: {element: Storage.S, kind: storage}
ratings:
  Line.L1: {i_a: 100}
"""

REGULATED = """\
Clear
New Circuit.regulated bus1=SRC basekV=20 pu=1.0 phases=3 MVAsc3=200 MVAsc1=200
New Line.L1 bus1=SRC bus2=A R1=0.3 X1=0.3 R0=0.9 X0=0.9 C1=0 C0=0 Length=5 Units=km
New Transformer.REG phases=3 windings=2 XHL=4 wdg=1 bus=A kV=20 kVA=4000 wdg=2 bus=B kV=20 kVA=4000
New RegControl.RC transformer=REG winding=2 vreg=120 band=2 ptratio=96.225
New Line.L2 bus1=B bus2=C R1=0.3 X1=0.3 R0=0.9 X0=0.9 C1=0 C0=0 Length=5 Units=km
New Capacitor.C1 bus1=C kV=20 kvar=600 numsteps=2
New CapControl.CC element=Line.L2 terminal=1 capacitor=C1 type=kvar onsetting=300 offsetting=-200
New Load.A bus1=C phases=3 kV=20 kW=1000 PF=0.9 model=1 Vminpu=0.5 Vmaxpu=1.5
Set VoltageBases=[20]
CalcVoltageBases
"""

REGULATED_YAML = """\
name: regulated
head: {branch: Line.L1, end: SRC}
pods:
  A: {element: Load.A, kind: load, kw: 1000, profile: constant}
"""


def feeder_in(folder, script=LINE, yaml=LINE_YAML):
    """The feeder of ``Master.dss`` and ``feeder.yaml`` written into ``folder``."""
    folder.mkdir(exist_ok=True)
    (folder / "Master.dss").write_text(script)
    (folder / "feeder.yaml").write_text(yaml)
    return load_feeder(folder)


def engine_in(folder, script=LINE, yaml=LINE_YAML, config=CONFIG):
    return Engine(feeder_in(folder, script, yaml), config)
