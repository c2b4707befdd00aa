"""Tests run as the framework does: linear algebra in one thread, set before NumPy is imported; Ctrl-C works, also where
a shell in the background has switched it off for all that it starts."""

import signal

import cosim  # noqa: F401

signal.signal(signal.SIGINT, signal.default_int_handler)
