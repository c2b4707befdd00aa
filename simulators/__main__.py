"""``python -m simulators NAME HOST:PORT``: one of our simulators as a process of its own, connecting to mosaik.

mosaik's own loop lets an error in ``init()`` end the process with a traceback; here every error goes back as an answer.
"""

from __future__ import annotations

import asyncio
import importlib
import sys

import mosaik_api_v3
from mosaik_api_v3.connection import Channel, EndOfRequests

from cosim.threads import one_thread
from cosim.wiring import CLASSES
from simulators.lifeline import tie_to_parent


async def serve(simulator: mosaik_api_v3.Simulator, host: str, port: int) -> None:
    """Answers mosaik's calls until it stops the simulator or is gone."""
    channel = Channel(*await asyncio.open_connection(host, port))
    ready = False
    try:
        while True:
            request = await channel.next_request()
            method, arguments, options = request.content
            if method == "stop":
                break
            try:
                answer = getattr(simulator, method)(*arguments, **options)
            except Exception as error:
                await request.set_exception(error)
            else:
                ready = ready or method == "init"
                await request.set_result(answer)
    except (EndOfRequests, ConnectionError):  # mosaik is gone
        pass
    finally:
        if ready:
            simulator.finalize()  # type: ignore[no-untyped-call]
        await channel.close()  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    tie_to_parent()
    module, _, class_name = CLASSES[sys.argv[1]].partition(":")
    address, _, number = sys.argv[2].rpartition(":")
    with one_thread():
        asyncio.run(serve(getattr(importlib.import_module(module), class_name)(), address, int(number)))
