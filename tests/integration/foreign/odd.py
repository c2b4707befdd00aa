"""A foreign simulator of one model, ``Source``, with output ``p``: a well-behaved one, or one that goes wrong.

``python odd.py HOST:PORT`` connects to mosaik; ``--remote`` makes it wait for mosaik to connect.
"""

from __future__ import annotations

import os
import signal
import time as wall

import mosaik_api_v3


class Odd(mosaik_api_v3.Simulator):
    """Parameters: ``values`` given in turn (the last one holds), ``step_s``, ``kind`` as mosaik's types of simulators,
    ``fault`` and ``at_s``, the time from which on it misbehaves."""

    def __init__(self):
        super().__init__({"models": {"Source": {"public": True, "params": ["gain"], "attrs": ["p", "q"]}}})

    def init(self, sid, time_resolution=1.0, values=(1.0,), step_s=900, fault="", at_s=0, kind="time-based"):
        self.values, self.step_s, self.fault, self.at_s = values, step_s, fault, at_s
        self.meta["type"] = kind
        if fault == "init":
            raise ValueError("cannot begin")
        if fault == "late":
            wall.sleep(0.3)
        if fault == "deaf":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        return self.meta

    def create(self, num, model, gain=1.0):
        self.gain = gain
        return [{"eid": f"source{k}", "type": model} for k in range(num)]

    def step(self, time, inputs, max_advance):
        self.t_s = time
        if self.fault and time >= self.at_s:
            return getattr(self, f"_{self.fault}")(time)
        return time + self.step_s

    def get_data(self, outputs):
        value = self.values[min(self.t_s // self.step_s, len(self.values) - 1)]
        if self.fault == "missing" and self.t_s >= self.at_s:
            return {}
        if self.fault in ("text", "nan") and self.t_s >= self.at_s:
            value = {"text": "much", "nan": float("nan")}[self.fault]
            return {entity: dict.fromkeys(attributes, value) for entity, attributes in outputs.items()}
        return {entity: dict.fromkeys(attributes, self.gain * value) for entity, attributes in outputs.items()}

    def _raise(self, time):
        raise ValueError("cannot go on")

    def _exit(self, time):
        os._exit(7)

    def _hang(self, time):
        wall.sleep(60.0)

    _deaf = _hang

    def _slow(self, time):
        wall.sleep(0.3)
        return time + self.step_s

    def _garbage(self, time):
        self.mosaik._channel._writer.write(b"\0\0\0\5hello")
        wall.sleep(0.1)
        return time + self.step_s

    def _past(self, time):
        return time

    def _words(self, time):
        return "later"

    def _missing(self, time):
        return time + self.step_s

    _text = _nan = _late = _missing


if __name__ == "__main__":
    mosaik_api_v3.start_simulation(Odd(), configure_logging=False)
