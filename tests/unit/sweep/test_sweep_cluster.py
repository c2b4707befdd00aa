"""What is refused before any worker starts, and what is told of what is no scheduler."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from cosim.errors import InputError, SweepError
from cosim.sweep.cluster import _least_of, connected, fault_of_memory


@pytest.mark.parametrize("text", ["1", "much", "-1GiB", "GiB", "1e999GiB", "nanGiB", "0MB", "", "2 foos"])
def test_what_is_no_size(text: str) -> None:
    assert str(fault_of_memory(text)).startswith("--memory: not a size such as 2GiB")


def test_less_than_a_worker_needs_to_start() -> None:
    told = "--memory: less than a worker needs to start; got 50MiB; allowed: at least 256MiB"
    assert str(fault_of_memory("50MiB")) == told
    assert fault_of_memory("256 MiB") is fault_of_memory("1.5GiB") is None
    with pytest.raises(InputError, match=told), connected(None, 1, "50MiB"):
        pass


def test_limit_that_is_told() -> None:
    assert _least_of({2**30, 3 * 2**29}) == "1.00 GiB"
    assert _least_of({2**30, 0}) == _least_of(set()) == "no limit of Dask's"


@pytest.fixture
def web_server() -> Iterator[str]:
    """The address of something that answers, but is no scheduler."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n" * 4)

        threading.Thread(target=answer, daemon=True).start()
        yield f"tcp://127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)


def test_something_else_than_a_scheduler(web_server: str) -> None:
    with pytest.raises(SweepError, match=f"^{web_server}: no Dask scheduler answers"), connected(web_server, 1, None):
        pass
