"""Tests run as the framework does: linear algebra in one thread, set before NumPy is imported."""

import cosim  # noqa: F401
