"""The command line in processes that start in milliseconds: forked from a server that has imported it all."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import socket
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(
    [
        "scenelift.workflows.cli.app",
        "scenelift.workflows.enhance",
        "scenelift.workflows.cli.console",
        "rioxarray",
        "support.processes",
    ]
)

PATIENCE = float(os.environ.get("SCENELIFT_PATIENCE", "300"))
"""Seconds after which a process that should have ended counts as hung; more where others leave it little time."""


@dataclass
class Command:
    """A running command and where it writes."""

    process: Any
    log: Path

    @property
    def pid(self) -> int:
        return int(self.process.pid)

    def wait(self, seconds: float = PATIENCE) -> int:
        """Return the exit code; negative for a signal."""
        self.process.join(seconds)
        if self.process.exitcode is None:
            kill_tree(self.pid)
            raise TimeoutError(f"the command hangs: {self.log.read_text()}")
        return int(self.process.exitcode)

    @property
    def output(self) -> str:
        return self.log.read_text()


def start(folder: Path, *args: object, **env: str) -> Command:
    """Start `scenelift ARGS` in `folder`, in a session of its own."""
    number = len(list(folder.glob("log-*")))
    log = folder / f"log-{number}"
    log.touch()
    process = _context.Process(target=_main, args=(list(map(str, args)), str(folder), str(log), env))
    process.start()
    return Command(process, log)


def call(folder: Path, *args: object, code: int = 0, **env: str) -> str:
    """Run `scenelift ARGS` to its end; it must exit with `code`. Returns what it wrote."""
    return finish(start(folder, *args, **env), code)


def finish(command: Command, code: int = 0, patience: float = PATIENCE) -> str:
    """Wait for a command, which must exit with `code`. Returns what it wrote."""
    found = command.wait(patience)
    assert found == code, f"exit {found} instead of {code}: {command.output}"
    return command.output


def _main(args: list[str], folder: str, log: str, env: dict[str, str]) -> None:
    os.setsid()
    os.chdir(folder)
    os.environ.update(env)
    sys.path.insert(0, folder)
    os.environ["PYTHONPATH"] = folder
    if env.get("PLAIN_USER"):
        _obey_permissions()
    if place := env.get("HOST"):
        _move_to(place, env.get("NETWORK"))
    handle = os.open(log, os.O_WRONLY | os.O_APPEND)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    from scenelift.workflows.cli.app import main

    sys.argv = ["scenelift", *args]
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    try:
        main()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


def _obey_permissions() -> None:
    """Let file permissions bind this process even if it is root's: drop the two capabilities that override them."""
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # version 3, this process
    sets = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable; twice 32 bits
    assert libc.capget(header, sets) == 0
    sets[0] &= ~0b110  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
    assert libc.capset(header, sets) == 0


def _move_to(host: str, network: str | None) -> None:
    """Give this process another host name, and the network of a namespace (needs root)."""
    libc = ctypes.CDLL(None, use_errno=True)
    new_names, new_network = 0x04000000, 0x40000000
    assert libc.unshare(new_names) == 0, os.strerror(ctypes.get_errno())
    socket.sethostname(host)
    if network:
        with Path(f"/run/netns/{network}").open() as space:
            assert libc.setns(space.fileno(), new_network) == 0, os.strerror(ctypes.get_errno())


def kill_tree(pid: int) -> None:
    """SIGKILL a process and all that descend from it."""
    try:
        root = psutil.Process(pid)
        for process in [root, *root.children(recursive=True)]:
            process.kill()
    except psutil.NoSuchProcess:
        pass


def wait_until(condition: Any, command: Command | None = None, seconds: float = PATIENCE) -> bool:
    """Wait for a condition; False if the command ended before it came true."""
    end = time.monotonic() + seconds
    while not condition():
        if command is not None and not command.process.is_alive():
            return bool(condition())
        if time.monotonic() > end:
            raise TimeoutError("the condition never came true")
        time.sleep(0.005)
    return True
