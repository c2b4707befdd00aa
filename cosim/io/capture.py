"""Capture of what passes over a live broker into a data set that can be replayed."""

from __future__ import annotations

import csv
import json
import math
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]

from cosim.errors import Fault, InputError, ResultError
from cosim.io.transport import Transport

_COLUMNS = ("time", "topic", "value", "unit", "sequence")
_SCHEMA = pa.schema(
    [
        ("time", pa.timestamp("ms", tz="UTC")),
        ("topic", pa.string()),
        ("value", pa.float64()),
        ("unit", pa.string()),
        ("sequence", pa.int64()),
    ]
)
_WAIT_S = 0.2


@dataclass(frozen=True)
class Reading:
    """One captured value; ``time`` is UTC, ``unit`` is empty and ``sequence`` None where the payload has none."""

    time: datetime
    topic: str
    value: float
    unit: str
    sequence: int | None


@dataclass(frozen=True)
class Capture:
    """What was captured: messages written, messages that held no number, and the first of them."""

    written: int
    rejected: int
    first_rejected: str


class _Sink(Protocol):
    def write(self, readings: Sequence[Reading]) -> None: ...

    def close(self) -> None: ...


def record(
    transport: Transport,
    path: Path,
    *,
    duration_s: float | None = None,
    max_messages: int | None = None,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
    stop: threading.Event | None = None,
) -> Capture:
    """Subscribe and write what arrives to ``path`` (.csv or .parquet), replacing it.

    Ends after ``duration_s`` [s], after ``max_messages`` written, when ``stop`` is set, or at Ctrl-C, whichever comes
    first. Columns: ``time`` (UTC with milliseconds; the payload's own, else ``now()`` at arrival), ``topic``,
    ``value``, ``unit``, ``sequence``. The file appears under its name when the capture ends; it does so too, with all
    that was captured, when the transport fails. Raises InputError for another kind of file, ResultError if it cannot
    be written, BrokerError if the broker refuses or is lost.
    """
    written, rejected, first_rejected = 0, 0, ""
    deadline = math.inf if duration_s is None else time.monotonic() + duration_s
    limit = math.inf if max_messages is None else max_messages
    with _written_whole(path) as sink, suppress(KeyboardInterrupt):
        transport.subscribe()
        while written < limit and time.monotonic() < deadline and not (stop is not None and stop.is_set()):
            arrived = transport.receive(max(0.0, min(_WAIT_S, deadline - time.monotonic())))
            readings = []
            for topic, payload in arrived:
                try:
                    readings.append(parse(topic, payload, now()))
                except ValueError as error:
                    rejected += 1
                    first_rejected = first_rejected or f"{topic}: {error}"
                if written + len(readings) >= limit:
                    break
            sink.write(readings)
            written += len(readings)
    return Capture(written, rejected, first_rejected)


def parse(topic: str, payload: bytes, arrival: datetime) -> Reading:
    """The reading in a payload: ``{"t": ISO time, "value": 1.5, "unit": "kW", "seq": 7, ...}`` or a bare number.

    All keys but ``value`` are optional. Raises ValueError if there is no finite number, or a key is not of its type.
    """
    content = _content(payload)
    fields = content if isinstance(content, dict) else {"value": content}
    match fields.get("value"):
        case bool():
            raise ValueError("value is a truth value, not a number")
        case int() | float() as number if math.isfinite(value := _float(number)):
            pass
        case other:
            raise ValueError(f"value is not a finite number: {str(other)[:60]}")
    match fields.get("unit", ""), fields.get("seq"):
        case str() as unit, (int() | None) as sequence if _is_whole(sequence):
            return Reading(_time(fields.get("t"), arrival), topic, value, unit, sequence)
    raise ValueError(f"unit must be a text and seq a whole number: {str(fields)[:60]}")


def _content(payload: bytes) -> object:
    try:
        return json.loads(payload)
    except (ValueError, RecursionError):
        pass
    try:
        return float(payload)  # such as +5. or .5, which JSON does not know
    except ValueError:
        raise ValueError(f"neither JSON nor a number: {payload[:60]!r}") from None


def _is_whole(sequence: int | None) -> bool:
    return sequence is None or (not isinstance(sequence, bool) and abs(sequence) < 2**63)


def _float(number: float) -> float:
    try:
        return float(number)
    except OverflowError:
        return math.inf


def _time(stated: object, arrival: datetime) -> datetime:
    if stated is None:
        return arrival.astimezone(UTC)
    instant = datetime.fromisoformat(stated) if isinstance(stated, str) else None
    if instant is None or instant.tzinfo is None:
        raise ValueError(f"t is not an ISO 8601 time with its offset: {str(stated)[:60]}")
    try:
        return instant.astimezone(UTC)
    except OverflowError:
        raise ValueError(f"t is out of range: {stated}") from None


class _CsvSink:
    def __init__(self, path: Path) -> None:
        self._file = path.open("w", encoding="utf-8", newline="")
        self._rows = csv.writer(self._file, lineterminator="\n")
        self._rows.writerow(_COLUMNS)

    def write(self, readings: Sequence[Reading]) -> None:
        self._rows.writerows(
            (r.time.isoformat(timespec="milliseconds"), r.topic, repr(r.value), r.unit, r.sequence) for r in readings
        )

    def close(self) -> None:
        self._file.close()


class _ParquetSink:
    _ROWS = 10_000

    def __init__(self, path: Path) -> None:
        self._writer = pq.ParquetWriter(path, _SCHEMA)
        self._waiting: list[Reading] = []

    def write(self, readings: Sequence[Reading]) -> None:
        self._waiting += readings
        if len(self._waiting) >= self._ROWS:
            self._flush()

    def close(self) -> None:
        self._flush()
        self._writer.close()

    def _flush(self) -> None:
        rows = [{name: getattr(reading, name) for name in _COLUMNS} for reading in self._waiting]
        self._writer.write_table(pa.Table.from_pylist(rows, schema=_SCHEMA))
        self._waiting = []


_SINKS: dict[str, Callable[[Path], _Sink]] = {".csv": _CsvSink, ".parquet": _ParquetSink}


@contextmanager
def _written_whole(path: Path) -> Iterator[_Sink]:
    """A sink into a temporary file that takes its name when it is complete, however the block ends."""
    make = _SINKS.get(path.suffix.lower())
    if make is None:
        raise InputError(Fault("kind of file not known", str(path), value=path.suffix, allowed=", ".join(_SINKS)))
    part = path.with_name(f".{path.name}.part")
    try:
        sink = make(part)
        try:
            yield sink
        finally:
            sink.close()
            os.replace(part, path)
    except OSError as error:
        raise ResultError(f"{path}: cannot be written: {error.strerror or error}") from error
