"""Debian's mosquitto on a free loopback port, for tests.

@needs_mosquitto
def test_something(tmp_path):
    with Mosquitto(tmp_path) as broker:
        ... broker.port ...
"""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import pytest

MOSQUITTO = shutil.which(
    "mosquitto", path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])
)
PASSWORD_TOOL = shutil.which("mosquitto_passwd")
NEEDS_MOSQUITTO = [
    pytest.mark.mosquitto,
    pytest.mark.skipif(
        MOSQUITTO is None and "CI" not in os.environ, reason="mosquitto is not installed: apt-get install mosquitto"
    ),
]
_START_S = 10.0


class Mosquitto:
    """A running broker; ``options`` are further lines of its configuration."""

    def __init__(self, folder: Path, options: Sequence[str] = ("allow_anonymous true",)) -> None:
        self.port = _free_port()
        self._config = folder / f"mosquitto-{self.port}.conf"
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.kill()

    def start(self) -> None:
        """Start, or start again on the same port, and wait until it listens."""
        if MOSQUITTO is None:
            pytest.fail("mosquitto is not installed: apt-get install mosquitto")
        lines = [f"listener {self.port} 127.0.0.1", f"user {getpass.getuser()}", "set_tcp_nodelay true", *self._options]
        self._config.write_text("\n".join(lines) + "\n")
        log = self._config.with_suffix(".log")
        with log.open("ab") as out:
            self._process = subprocess.Popen([MOSQUITTO, "-c", str(self._config)], stdout=out, stderr=out)
        deadline = time.monotonic() + _START_S
        while not _listens(self.port):
            if self._process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"mosquitto did not start: {log.read_text()}")
            time.sleep(0.01)

    def kill(self) -> None:
        """End it at once (SIGKILL), as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


def password_file(folder: Path, username: str, password: str) -> Path:
    """A password file with one user."""
    file = folder / "passwords"
    assert PASSWORD_TOOL is not None, "mosquitto_passwd comes with mosquitto"
    subprocess.run([PASSWORD_TOOL, "-b", "-c", str(file), username, password], check=True, capture_output=True)
    return file


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
