"""Networks that are slow, lossy or cut, between driver, scheduler, workers and storage on hosts of their own."""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Iterator
from pathlib import Path

from support.faults import BLOCKS, Bench, arguments, committed, same
from support.faults.disks import UnableError
from support.networks import Network, environment, why_not
from support.processes import Command, call, start, wait_until

HOSTS = ("driver", "scheduler", "one", "two", "storage")
PORT = 8786
OUT = "out.zarr"
OUTAGE = 30.0
"""Seconds that a cable is cut for."""


def slow(bench: Bench, folder: Path, delay: float = 0.05) -> None:
    """Every packet takes a twentieth of a second."""
    with hosts(bench, folder) as place:
        place.network.delay = delay
        assert place.enhance().wait() == 0
    _check(bench, folder)


def lossy(bench: Bench, folder: Path, share: float = 0.05) -> None:
    """One packet in twenty gets lost."""
    with hosts(bench, folder) as place:
        place.network.loss = share
        assert place.enhance().wait() == 0
    _check(bench, folder)


def cut(bench: Bench, folder: Path, one: str, other: str, seconds: float | None) -> None:
    """Cut a cable under a run, for some seconds or for good; without the scheduler a run stops, to go on later."""
    with hosts(bench, folder) as place:
        command = place.enhance()
        with place.held(command):
            place.network.cut(one, other)
            if seconds is not None:
                time.sleep(seconds)
                place.network.mend(one, other)
        code = command.wait()
    wanted = {75} if seconds is None else {0, 75}
    assert code in ({0} if "driver" not in (one, other) else wanted), f"exit {code}: {command.output}"
    assert (folder / OUT).exists() == (code == 0), command.output
    _check(bench, folder)


def cut_storage(bench: Bench, folder: Path, seconds: float | None) -> None:
    """Cut both workers from the storage of the input: they wait, or the run stops as one that stands still."""
    with hosts(bench, folder) as place, place.storage() as address:
        given = [address if word == "in.tif" else word for word in arguments(OUT)] + ["--allow-remote"]
        alone = [word if word != OUT else "log-reference.zarr" for word in given]
        call(folder, *alone, **place.on("driver"), SLOW="0")
        command = place.enhance(address, "--allow-remote", *([] if seconds else ["--stall", 120]))
        with place.held(command):
            for worker in ("one", "two"):
                place.network.cut(worker, "storage")
        if seconds is None:
            told = "no block was finished", "its server does not respond"  # reads wait, or fail
            assert command.wait() == 75 and any(line in command.output for line in told), command.output
            assert committed(folder, OUT) < BLOCKS and not (folder / OUT).exists()
        else:
            time.sleep(seconds)
            assert committed(folder, OUT) < BLOCKS, "the input was read before the cable was cut"
        for worker in ("one", "two"):
            place.network.mend(worker, "storage")
        if seconds is None:
            call(folder, *given, **place.on("driver"), SLOW="0")
        else:
            assert command.wait() == 0, command.output
    assert same(folder / OUT, folder / "log-reference.zarr")


class Place:
    """A scheduler, two workers and a folder that all hosts see."""

    def __init__(self, network: Network, folder: Path) -> None:
        self.network = network
        self.folder = folder
        self.hold = folder.with_name(folder.name + ".hold")

    def on(self, host: str) -> dict[str, str]:
        """Return what puts a command on a host."""
        return {"HOST": host, "NETWORK": self.network.space(host)}

    def enhance(self, source: str = "in.tif", *more: object) -> Command:
        """Start a run on the driver's host."""
        scheduler = f"tcp://{self.network.address('scheduler')}:{PORT}"
        given = [source if word == "in.tif" else word for word in arguments(OUT)]
        return start(self.folder, *given, *more, "--scheduler", scheduler, **self.on("driver"), SLOW="0")

    @contextlib.contextmanager
    def held(self, command: Command) -> Iterator[None]:
        """Do something while blocks are under way, some are done and none is finished meanwhile."""
        assert wait_until(lambda: committed(self.folder, OUT) >= 1, command), command.output
        self.hold.touch()
        try:
            yield
        finally:
            self.hold.unlink()

    @contextlib.contextmanager
    def storage(self) -> Iterator[str]:
        """Serve the folder on a host of its own; yields the address of the input."""
        where, ready = self.network.address("storage"), self.folder / "log-storage"
        command = ["-m", "support.storage", where, 8000, self.folder, ready]
        with self.network.process("storage", command, env=_environment(self)):
            assert wait_until(ready.exists)
            yield f"http://{where}:8000/in.tif"


@contextlib.contextmanager
def hosts(bench: Bench, folder: Path) -> Iterator[Place]:
    """Make the hosts, and start scheduler and workers on them."""
    if reason := why_not():
        raise UnableError(reason)
    bench.place(folder)
    with Network(*HOSTS, seed=random.Random(str(folder)).randrange(2**31)) as network, contextlib.ExitStack() as stack:
        place = Place(network, folder)
        address = network.address("scheduler")
        scheduler = ["-m", "distributed.cli.dask_scheduler", "--host", address, "--port", PORT, "--no-dashboard"]
        ready = folder / "log-scheduler.json"
        stack.enter_context(
            network.process("scheduler", [*scheduler, "--scheduler-file", ready], env=_environment(place))
        )
        wait_until(ready.exists)
        for worker in ("one", "two"):
            command = ["-m", "distributed.cli.dask_worker", f"tcp://{address}:{PORT}", "--nthreads", "1"]
            command += ["--no-dashboard", "--host", network.address(worker), "--local-directory", folder / "log-dask"]
            told = stack.enter_context((folder / f"log-{worker}").open("wb"))
            stack.enter_context(network.process(worker, command, env=_environment(place), stderr=told))
        for worker in ("one", "two"):  # so that all models are loaded before the first block
            wait_until(lambda log=folder / f"log-{worker}": "Registered to" in log.read_text())
        yield place


def _environment(place: Place) -> dict[str, str]:
    # little is kept of a remote file, so that blocks read it while they are done
    spare = {"CPL_VSIL_CURL_CHUNK_SIZE": "1024", "CPL_VSIL_CURL_CACHE_SIZE": "2048"}
    tests = str(Path(__file__).resolve().parents[2])
    path = {"PYTHONPATH": f"{place.folder}:{tests}"}
    return dict(environment(SLOW="0.2", HOLD=str(place.hold), **path, **spare))


def _check(bench: Bench, folder: Path) -> None:
    call(folder, *arguments(OUT), SLOW="0")
    bench.check(folder, OUT)
