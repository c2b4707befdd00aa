"""Tests run as the framework does: linear algebra in one thread, set before NumPy is imported; Ctrl-C works, also where
a shell in the background has switched it off for all that it starts.

Laws are tried on the same examples in every run, however slow the machine; on new ones with
``pytest --hypothesis-profile explore``.
"""

import gc
import signal

import cosim  # noqa: F401

# isort: split
from hypothesis import HealthCheck, settings

signal.signal(signal.SIGINT, signal.default_int_handler)
settings.register_profile("explore", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("same", settings.get_profile("explore"), derandomize=True)
settings.load_profile("same")


def pytest_collection_finish() -> None:
    """Leaves all that there is before the first test out of garbage collection. It lasts until the end, and every run
    looks for garbage when it begins and ends: to look through all tests each time would take a third of a short run."""
    gc.collect()
    gc.freeze()
