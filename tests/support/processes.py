"""The command line in processes that start in milliseconds: forked from a server that has imported it all."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import tempfile
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


class UnexpectedExit(Exception):  # noqa: N818 - it is one, not an error of this module
    """A command ended with another exit code than it must."""


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
    where = {"PYTHONPATH": str(folder)} | env
    process = _context.Process(target=_main, args=(list(map(str, args)), folder, log, log, where))
    process.start()
    return Command(process, log)


def run(*args: object, cwd: Path | None = None, seconds: float = PATIENCE) -> subprocess.CompletedProcess[str]:
    """Run `scenelift ARGS` to its end in this process's environment, as `subprocess.run` would with captured output."""
    with tempfile.TemporaryDirectory() as place:
        out, err = Path(place, "stdout"), Path(place, "stderr")
        words, where = list(map(str, args)), dict(os.environ)
        process = _context.Process(target=_main, args=(words, cwd or Path.cwd(), out, err, where, True))
        process.start()
        code = Command(process, err).wait(seconds)
        return subprocess.CompletedProcess(["scenelift", *words], code, out.read_text(), err.read_text())


def call(folder: Path, *args: object, code: int = 0, **env: str) -> str:
    """Run `scenelift ARGS` to its end; it must exit with `code`. Returns what it wrote."""
    return finish(start(folder, *args, **env), code)


def finish(command: Command, code: int = 0, patience: float = PATIENCE) -> str:
    """Wait for a command, which must exit with `code`. Returns what it wrote."""
    found = command.wait(patience)
    if found != code:
        raise UnexpectedExit(f"exit {found} instead of {code}: {command.output}")
    return command.output


def _main(args: list[str], folder: Path, out: Path, err: Path, env: dict[str, str], alone: bool = False) -> None:
    """Be the command in `folder`; `alone`: `env` is all of its environment."""
    os.setsid()
    os.chdir(folder)
    if alone:
        os.environ.clear()
    os.environ.update(env)
    sys.path[:0] = [path for path in env.get("PYTHONPATH", "").split(os.pathsep) if path]
    if env.get("PLAIN_USER"):
        _obey_permissions()
    if place := env.get("HOST"):
        _move_to(place, env.get("NETWORK"))
    for number, path in ((1, out), (2, err)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT), number)
    from scenelift.workflows.cli.app import main

    sys.argv = ["scenelift", *args]
    # the server may be the one that workers are forked from, which a Ctrl-C must not reach
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
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
    refused = libc.capget(header, sets)
    sets[0] &= ~0b110  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
    if refused or libc.capset(header, sets):
        raise OSError(ctypes.get_errno(), "cannot drop capabilities")


def _move_to(host: str, network: str | None) -> None:
    """Give this process another host name, and the network of a namespace (needs root)."""
    libc = ctypes.CDLL(None, use_errno=True)
    new_names, new_network = 0x04000000, 0x40000000
    if libc.unshare(new_names):
        raise OSError(ctypes.get_errno(), "cannot have a host name of its own")
    socket.sethostname(host)
    if network:
        with Path(f"/run/netns/{network}").open() as space:
            if libc.setns(space.fileno(), new_network):
                raise OSError(ctypes.get_errno(), "cannot enter the network namespace", network)


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
