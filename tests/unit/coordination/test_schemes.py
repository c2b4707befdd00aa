"""Scheme files: what ships, what kind it is, and what is refused."""

import pytest

from cosim.coordination.catalogue import SCHEMES, load_scheme, shipped
from cosim.coordination.classify import classify, grid_safe
from cosim.coordination.flows import flows
from cosim.errors import SchemeError

CLASSES = {
    "it_dso_priority": "Multi-level",
    "it_dso_priority_mode1": "Multi-level",
    "it_tso_priority": "Multi-level, TSO first",
    "it_tso_priority_raw": "Multi-level, TSO first",
    "it_tso_priority_rebalance": "Multi-level, TSO first",
    "traffic_light": "Multi-level",
    "it_coopt": "Common",
    "smartnet_common_central": "Common",
    "smartnet_centralised": "Central",
    "smartnet_local": "Multi-level",
    "smartnet_shared": "Fragmented",
    "smartnet_shared_priced": "Fragmented",
    "smartnet_common_decentral": "Common (decomposed)",
    "smartnet_integrated": "Integrated",
    "givisiez_tso": "Central with grid view",
    "givisiez_hybrid": "Multi-level",
    "givisiez_dso": "Multi-level",
    "givisiez_dso_curve": "Multi-level",
    "usman_two_stage": "Common, P then Q",
    "lfm_mode1": "Local",
    "lfm_mode2": "Multi-level",
    "local_only": "Local",
    "central_only": "Central",
    "dso_then_t_only": "Fragmented",
}
LAYERS = {
    "it_dso_priority": ("both", "DSO+TSO", "multi", True),
    "it_coopt": ("both", "DSO+TSO", "single", True),
    "smartnet_centralised": ("central", "TSO", "single", True),
    "smartnet_shared": ("both", "DSO+TSO", "multi", False),
    "lfm_mode1": ("local", "DSO", "single", False),
}
SAFE = {name for name in CLASSES if name not in ("central_only", "smartnet_centralised")} - {
    "it_dso_priority",
    "it_dso_priority_mode1",
    "it_tso_priority_raw",
    "it_tso_priority_rebalance",
}
BETWEEN_OPERATORS = {
    "it_dso_priority": ({"RESULT"}, {"RESULT"}),
    "traffic_light": ({"RESULT", "LIMIT"}, {"RESULT"}),
    "it_tso_priority": ({"LIMIT", "RESULT"}, {"RESULT"}),
    "it_coopt": (set(), set()),
    "smartnet_centralised": ({"RESOURCE_LIST"}, {"ACTIVATION"}),
    "smartnet_local": ({"BID_CURVE"}, {"AWARD"}),
    "smartnet_shared": ({"IFACE_SCHEDULE"}, {"IFACE_SCHEDULE"}),
    "smartnet_common_decentral": ({"BID_CURVE"}, {"AWARD"}),
    "givisiez_tso": ({"OPER_DATA", "NETWORK_MODEL"}, set()),
    "givisiez_hybrid": ({"VALIDATION"}, {"PICKED_SET"}),
    "givisiez_dso": ({"BID_CAP"}, {"AWARD"}),
    "givisiez_dso_curve": ({"BID_CURVE"}, {"AWARD"}),
    "usman_two_stage": ({"BID_CURVE"}, {"AWARD"}),
    "dso_then_t_only": ({"RESULT"}, set()),
    "lfm_mode1": (set(), set()),
}


def test_what_ships_is_classified_here():
    assert set(CLASSES) <= set(shipped())


@pytest.mark.parametrize("name", CLASSES)
def test_class_from_the_stages(name):
    scheme = load_scheme(name)
    assert scheme.name == name
    assert classify(scheme).name == CLASSES[name]
    assert grid_safe(scheme) == (name in SAFE)


@pytest.mark.parametrize("name", LAYERS)
def test_layers(name):
    found = classify(load_scheme(name))
    assert (found.need, found.buyers, found.markets, found.tso_reaches_distribution) == LAYERS[name]


@pytest.mark.parametrize("name", BETWEEN_OPERATORS)
def test_what_crosses_between_the_operators(name):
    scheme = load_scheme(name)
    to_tso, to_dso = BETWEEN_OPERATORS[name]
    assert {kind for kind, *pair in scheme.declared if pair == ["DSO", "TSO"]} == to_tso
    assert {kind for kind, *pair in scheme.declared if pair == ["TSO", "DSO"]} == to_dso


@pytest.mark.parametrize("name", CLASSES)
def test_no_code_knows_a_scheme(name):
    """Schemes are data: no module of the room names one."""
    for path in SCHEMES.parent.glob("*.py"):
        assert f'"{name}"' not in path.read_text()


def test_flows_name_the_stages_between_which_they_go():
    found = {(f.type, f.sender, f.receiver, f.source, f.target) for f in flows(load_scheme("smartnet_local"))}
    assert ("BID_CURVE", "DSO", "TSO", "residual", "AS") in found
    assert ("AWARD", "TSO", "DSO", "AS", "dispatch") in found
    assert ("BID", "AGG", "DSO", "", "local") in found


def test_an_unknown_scheme_lists_what_there_is():
    with pytest.raises(
        SchemeError, match=r"no scheme of that name; got it_dso; allowed: central_only, .*or a YAML file"
    ):
        load_scheme("it_dso")


def refused(tmp_path, text):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(SchemeError) as error:
        load_scheme(path)
    return [str(fault).removeprefix(str(path)) for fault in error.value.faults]


MSD = "  MSD: {solver: TSO, buyers: [TSO], resources: DT, network: T, balance: system"
FIRST = """name: mine
description: mine
messages: {AGG to DSO: [BID], AGG to TSO: [BID], DSO to AGG: [AWARD], TSO to AGG: [AWARD], DSO to TSO: [RESULT]}
stages:
  MSL: {solver: DSO, buyers: [DSO], resources: D, network: D}
"""


def test_a_scheme_of_ones_own(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(FIRST + MSD + ", uses: [MSL]}\n")
    assert classify(load_scheme(path)).name == "Multi-level"


def test_an_unknown_stage(tmp_path):
    (fault, *_) = refused(tmp_path, FIRST + MSD + ", uses: [MLS]}\n")
    assert fault == ":6: stages.MSD.uses.0: unknown stage; did you mean MSL?; got MLS; allowed: MSL, MSD"


def test_a_cycle_that_never_ends(tmp_path):
    text = FIRST.replace("network: D}", "network: D, uses: [MSD]}") + MSD + ", uses: [MSL]}\n"
    assert any("stages MSL and MSD wait for each other and never end" in fault for fault in refused(tmp_path, text))
    (own, *_) = refused(tmp_path, FIRST.replace("network: D}", "network: D, uses: [MSL]}") + MSD + ", uses: [MSL]}\n")
    assert "stage MSL waits for itself" in own


def test_a_repeat_that_cuts_nothing_never_ends(tmp_path):
    text = FIRST + MSD + ", uses: [MSL], repeat: {back_to: MSL}}\n"
    (fault,) = refused(tmp_path, text)
    assert ":6: stages.MSD.repeat: the cycle never ends: its last stage cuts nothing" in fault
    (fault,) = refused(tmp_path, FIRST + MSD + ", uses: [MSL], repeat: {back_to: nowhere}}\n")
    assert "stages.MSD.repeat.back_to: unknown stage; got nowhere; allowed: MSL, MSD" in fault
    (fault,) = refused(tmp_path, FIRST + MSD + ", uses: [MSL], repeat: {back_to: MSD}}\n")
    assert "a repeat goes back to an earlier stage" in fault


def test_a_cycle_without_each_others_outcome_never_ends(tmp_path):
    check = (
        "  check: {solver: DSO, resources: D, network: D, objective: validate, lock: false, repeat: {back_to: MSD}}\n"
    )
    faults = refused(tmp_path, FIRST + MSD + ", uses: [MSL]}\n" + check)
    assert any("the cycle never ends: MSD and check do not use each other's outcome" in fault for fault in faults)


def test_messages_must_be_those_of_the_stages(tmp_path):
    text = FIRST.replace("DSO to TSO: [RESULT]", "TSO to DSO: [LIMIT]") + MSD + ", uses: [MSL]}\n"
    assert refused(tmp_path, text) == [
        ":3: messages.DSO to TSO: stage MSD needs RESULT to cross, which is not declared",
        ":3: messages.TSO to DSO: no stage sends this; got LIMIT",
    ]


@pytest.mark.parametrize(
    ("stage", "problem"),
    [
        ("solver: DSO, buyers: [DSO], resources: DT, network: TD", "clears its own resources and network only"),
        ("solver: TSO, buyers: [TSO], resources: DT, network: T, balance: hold", "balance hold is of the interface"),
        ("solver: TSO, buyers: [TSO], resources: D, network: none", "needs the network of distribution"),
        ("solver: TSO, buyers: [TSO], resources: DT, network: T, admit: curve", "needs a stage with objective range"),
        ("solver: TSO, buyers: [TSO], resources: T, network: T, admit: caps", "is for bids of distribution"),
        ("solver: DSO, buyers: [DSO], resources: D, network: D, balance: target", "a target comes from a stage that"),
        ("solver: DSO, resources: D, network: D", "a stage that buys needs a buyer"),
        ("solver: DSO, resources: D, network: D, objective: range", "awards nothing that could bind"),
        ("solver: DSO, resources: D, network: D, objective: caps, lock: false, balance: hold", "objective caps asks"),
        ("solver: IMO, buyers: [BRP], resources: DT, network: TD", "where welfare is cleared by the IMO"),
        ("solver: DSO, buyers: [DSO], resources: D, network: D, fallback: none", "only a balance at the interface"),
        ("solver: DSO, buyers: [DSO], resources: D, network: D, commodity: Q", "as a curve or a target"),
    ],
)
def test_stages_that_make_no_sense(tmp_path, stage, problem):
    faults = refused(tmp_path, FIRST + f"  other: {{{stage}}}\n")
    assert any(fault.startswith(":6: stages.other") and problem in fault for fault in faults), faults


def test_a_curve_that_would_count_an_award_twice(tmp_path):
    text = FIRST + "  rest: {solver: DSO, resources: D, network: D, objective: range, lock: false}\n"
    faults = refused(tmp_path, text + MSD + ", admit: curve, uses: [MSL, rest]}\n")
    assert any("the curve tells already what MSL changed at the interface" in fault for fault in faults)
    late = MSD + "}\n  rest: {solver: DSO, resources: D, network: D, objective: range, lock: false, uses: [MSD]}\n"
    assert any("it cannot take in those of another" in fault for fault in refused(tmp_path, FIRST + late))


def test_all_faults_of_the_file_at_once(tmp_path):
    faults = refused(tmp_path, FIRST.replace("solver: DSO", "solver: DS0") + MSD + ", exclude: all}\n")
    assert len(faults) == 2
    assert faults[0].startswith(":5: stages.MSL.solver: not one of the choices")
    assert faults[1].startswith(":6: stages.MSD.exclude: not one of the choices")
