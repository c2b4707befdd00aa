"""Dask: workers on this machine or those of a scheduler, and what they make of the runs."""

from __future__ import annotations

import logging
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress

import dask
from dask.utils import format_bytes, parse_bytes
from distributed import Client, Future, LocalCluster, as_completed
from distributed.comm.addressing import get_address_host_port
from distributed.scheduler import KilledWorker

from cosim.errors import Fault, InputError, SweepError
from cosim.sweep.work import Job, Outcome, work

_LOOPBACK = "127.0.0.1"
_ANSWER_S = 5
_BATCH = 500  # runs sent at once: Dask warns of more than 10 MB
_LEAST = "256MiB"  # a worker takes 180 MB before it does anything; one that dies at its start is started for ever
_DIED = (
    "the worker that ran it died every time, at last while it ran alone: it needs more memory than its worker may use"
    " ({limit}), or something kills it"
)
_LOCAL = {
    "distributed.scheduler.allowed-failures": 0,  # given up at the first death, to be done again alone
    "distributed.scheduler.http.routes": [],  # it serves no pages
    "distributed.worker.http.routes": [],
    "distributed.worker.memory.pause": False,  # runs leave nothing that could go, and a worker would pause for ever
}


@contextmanager
def connected(scheduler: str | None, workers: int, memory: str | None) -> Iterator[Client]:
    """A client of the scheduler at an address, or of one with ``workers`` processes of its own on this machine, one
    thread each, which only this machine can reach; ``memory`` is what each may use, such as ``2GiB``.

    Raises SweepError if the scheduler does not answer, InputError if it is no address or ``memory`` no size.
    """
    fault = None if memory is None else fault_of_memory(memory)
    if fault is not None:
        raise InputError(fault)
    with _silence(), dask.config.set(_LOCAL):
        if scheduler is not None:
            with _client(scheduler) as client:
                yield client
            return
        with _local(workers, memory) as cluster, Client(cluster, set_as_default=False) as client:  # type: ignore[no-untyped-call]
            yield client


def _local(workers: int, memory: str | None) -> LocalCluster:
    with _deaf():
        return LocalCluster(  # type: ignore[no-untyped-call]
            n_workers=workers,
            threads_per_worker=1,
            processes=True,
            host=_LOOPBACK,
            dashboard_address=f"{_LOOPBACK}:0",
            scheduler_kwargs={"dashboard": False},
            silence_logs=logging.CRITICAL,
            memory_limit=memory or "auto",
        )


@contextmanager
def _deaf() -> Iterator[None]:
    """Processes started meanwhile ignore Ctrl-C, which a terminal sends to all of them: we alone end our workers."""
    try:
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    except ValueError:  # not in the main thread
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def outcomes(client: Client, jobs: Sequence[Job]) -> Iterator[tuple[Job, Outcome]]:
    """How each run went, as they end.

    When a worker dies, Dask gives its run to another one, or gives it up after some deaths (on our own cluster the
    first), and with it whatever else waited for that worker. So runs that were given up are done again one by one, and
    only those that a worker dies of on their own have failed.

    Raises SweepError if the scheduler is lost.
    """
    given_up, limits = list[Job](), _limits_of(client)
    for job, outcome in _all_at_once(client, jobs):
        if outcome is None:
            given_up.append(job)
        else:
            yield job, outcome
    for job in given_up:
        for _, outcome in _all_at_once(client, [job]):
            yield job, outcome or Outcome("failed", _DIED.format(limit=_least_of(limits | _limits_of(client))))


def _all_at_once(client: Client, jobs: Sequence[Job]) -> Iterator[tuple[Job, Outcome | None]]:
    """None for a run whose workers died."""
    futures = client.map(work, jobs, pure=False, batch_size=_BATCH)
    job_of = dict(zip(futures, jobs, strict=True))
    try:
        for future in as_completed(futures, loop=client.loop):  # type: ignore[no-untyped-call]
            yield job_of[future], _outcome(future)
    finally:
        with suppress(Exception):  # a scheduler that is gone has nothing to cancel
            client.cancel(futures)  # type: ignore[no-untyped-call]


def _outcome(future: Future[Outcome]) -> Outcome | None:
    try:
        return future.result()
    except KilledWorker:
        return None
    except CancelledError as error:
        raise SweepError("the Dask scheduler is lost; what is done stays: sweep again for the rest") from error
    except Exception as error:  # the worker could not even begin, e.g. it has another version of this package
        return Outcome("failed", f"on the worker: {type(error).__name__}: {error}")


def fault_of_memory(text: str) -> Fault | None:
    """What is wrong with what a worker may use, if it is not an amount such as ``2GiB`` that one can start with."""
    try:
        size = parse_bytes(text) if text[:1].isdigit() and text[-1].isalpha() else 0
    except (ValueError, OverflowError):
        size = 0
    if size == 0:
        return Fault("not a size such as 2GiB", key="--memory", value=text)
    if size < parse_bytes(_LEAST):
        return Fault("less than a worker needs to start", key="--memory", value=text, allowed=f"at least {_LEAST}")
    return None


class _Client(Client):
    """Whatever Dask makes of an answer that is none of a scheduler is an OSError, after which it closes its client."""

    async def _ensure_connected(self, timeout: float | None = None) -> None:
        try:
            await super()._ensure_connected(timeout=timeout)  # type: ignore[no-untyped-call]
        except Exception as error:
            raise OSError(f"{type(error).__name__}: {error}") from error


def _client(address: str) -> Client:
    try:
        get_address_host_port(address, strict=True)
    except ValueError:
        problem = "not the address of a scheduler"
        raise InputError(Fault(problem, key="--scheduler", value=address, allowed="such as tcp://host:8786")) from None
    try:
        return _Client(address, timeout=_ANSWER_S, set_as_default=False)  # type: ignore[no-untyped-call]
    except (OSError, TimeoutError) as error:
        raise SweepError(f"{address}: no Dask scheduler answers within {_ANSWER_S} s") from error


def _limits_of(client: Client) -> set[int]:
    """What each worker may use [bytes], 0 for no limit; none while none is there, as when the last one has died."""
    with suppress(Exception):
        return {worker["memory_limit"] for worker in client.scheduler_info(n_workers=-1)["workers"].values()}
    return set()


def _least_of(limits: set[int]) -> str:
    return "no limit of Dask's" if 0 in limits or not limits else str(format_bytes(min(limits)))


@contextmanager
def _silence() -> Iterator[None]:
    """Dask logs what the index tells anyway."""
    levels: dict[logging.Logger, int] = {}
    for name in ("distributed", "distributed.client", "tornado.application", "asyncio"):
        logger = logging.getLogger(name)
        levels[logger] = logger.level
        logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        for logger, level in levels.items():
            logger.setLevel(level)
