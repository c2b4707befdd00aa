import inspect

import pytest

from cosim import errors
from cosim.errors import CosimError, Fault, FeederError, InputError, Interrupted, PowerFlowError


def test_a_fault_says_where_what_and_what_is_allowed():
    fault = Fault("unknown key", "a.yaml", 7, "pods.X.kW", "5", "element, kw")
    assert str(fault) == "a.yaml:7: pods.X.kW: unknown key; got 5; allowed: element, kw"
    assert str(Fault("unknown key", "a.yaml")) == "a.yaml: unknown key"
    assert str(Fault("unknown key", key="pods")) == "pods: unknown key"
    assert str(Fault("unknown key")) == "unknown key"


def test_an_input_error_shows_every_fault_in_its_own_line():
    both = FeederError([Fault("one"), Fault("two")])
    assert str(both) == "one\ntwo"
    assert both.faults == (Fault("one"), Fault("two"))
    assert FeederError(Fault("one")).faults == (Fault("one"),)


@pytest.mark.parametrize(
    ("error", "code"), [(FeederError, 2), (InputError, 2), (PowerFlowError, 1), (Interrupted, 130)]
)
def test_exit_codes(error, code):
    assert error.exit_code == code


def test_the_tree_drawn_in_the_docstring_is_the_tree_there_is():
    classes = [c for _, c in inspect.getmembers(errors, inspect.isclass) if issubclass(c, Exception)]
    drawn = [
        line.replace("│", " ") for line in (errors.__doc__ or "").splitlines() if "Error " in line or "Interr" in line
    ]
    depth = {line.split("── ")[-1].split()[0]: len(line) - len(line.lstrip(" ├└─")) for line in drawn}
    assert set(depth) == {c.__name__ for c in classes}
    assert depth == {c.__name__: 4 * (len(c.__mro__) - len(CosimError.__mro__)) for c in classes}
