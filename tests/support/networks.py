"""Hosts of their own on one machine, and the cables between them: slow, lossy, or cut.

Every host is a network namespace with one interface, a TAP device whose other end this process holds: what a host sends
arrives here, and is handed on, late, or not at all. So the kernel's own TCP is what suffers, and needs no queueing
discipline of its own for it. Addresses are of a range for documentation, and exist in the namespaces alone.
"""

from __future__ import annotations

import contextlib
import fcntl
import heapq
import os
import random
import select
import shutil
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from support.processes import kill_tree

TUNSETIFF, IFF_TAP, IFF_NO_PI = 0x400454CA, 0x0002, 0x1000
SUBNET = "192.0.2"
PREFIX = "sl"


def why_not() -> str | None:
    """Return why this machine has no hosts to offer; None if it has."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if shutil.which("ip") is None:
        return "needs the program ip (Debian: iproute2)"
    if not Path("/dev/net/tun").exists():
        return "this kernel has no TAP devices"
    name = f"{PREFIX}{os.getpid()}-try"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True)
    if made.returncode:
        return f"network namespaces are not allowed here: {made.stderr.strip()}"
    subprocess.run(["ip", "netns", "delete", name], check=True)
    try:
        os.close(os.open("/dev/net/tun", os.O_RDWR))
    except OSError as error:
        return f"TAP devices are not allowed here: {error.strerror}"
    return None


class Network:
    """Some hosts, each joined to each by a cable. Open while the context lasts."""

    def __init__(self, *hosts: str, seed: int = 0) -> None:
        self.hosts = hosts
        self.delay = 0.0
        """Seconds that every frame is late."""
        self.loss = 0.0
        """Share of frames that get lost."""
        self._cuts: set[frozenset[str]] = set()
        self._random = random.Random(seed)
        self._taps: dict[int, str] = {}
        self._wake, self._woken = os.pipe()
        self._ended = False

    def __enter__(self) -> Network:
        try:
            for number, host in enumerate(self.hosts, start=1):
                self._add(host, number)
        except BaseException:
            self._remove()
            raise
        self._switch = threading.Thread(target=self._forward, daemon=True, name="switch")
        self._switch.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended = True
        os.write(self._woken, b"x")
        self._switch.join()
        self._remove()

    def address(self, host: str) -> str:
        """Return the address of a host."""
        return f"{SUBNET}.{self.hosts.index(host) + 1}"

    def cut(self, *pair: str) -> None:
        """Cut the cable between two hosts: nothing comes through, and nobody is told."""
        self._cuts.add(frozenset(pair))

    def mend(self, *pair: str) -> None:
        """Join two hosts again."""
        self._cuts.discard(frozenset(pair))

    @contextlib.contextmanager
    def process(self, host: str, arguments: Sequence[object], **how: Any) -> Iterator[None]:
        """Run Python on a host, under a host name of its own, as long as the context lasts."""
        inside = ["ip", "netns", "exec", self.space(host), "unshare", "--uts", "sh", "-c"]
        script = 'hostname "$0" && exec "$@"'
        quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        started = subprocess.Popen([*inside, script, host, sys.executable, *map(str, arguments)], **(quiet | how))
        try:
            yield
        finally:
            kill_tree(started.pid)
            started.wait()

    def space(self, host: str) -> str:
        """Return the name of a host's namespace."""
        return f"{PREFIX}{os.getpid()}-{host}"

    def _add(self, host: str, number: int) -> None:
        space, device = self.space(host), f"{PREFIX}{os.getpid() % 10**6}t{number}"
        _run("ip", "netns", "add", space)
        handle = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        self._taps[handle] = host
        fcntl.ioctl(handle, TUNSETIFF, struct.pack("16sH22x", device.encode(), IFF_TAP | IFF_NO_PI))
        _run("ip", "link", "set", device, "address", f"02:00:00:00:00:{number:02x}", "netns", space)
        inside = ["ip", "-n", space]
        _run(*inside, "address", "add", f"{SUBNET}.{number}/24", "dev", device)
        _run(*inside, "link", "set", device, "up")
        _run(*inside, "link", "set", "lo", "up")

    def _remove(self) -> None:
        for handle in [*self._taps, self._wake, self._woken]:
            os.close(handle)  # the device goes with it
        for host in self.hosts:
            subprocess.run(["ip", "netns", "delete", self.space(host)], capture_output=True)

    def _forward(self) -> None:
        """Hand frames on until the end."""
        late: list[tuple[float, int, int, bytes]] = []
        count = 0
        while not self._ended:
            pause = max(0.0, late[0][0] - time.monotonic()) if late else None
            ready, _, _ = select.select([*self._taps, self._wake], [], [], pause)
            for handle in ready:
                if handle == self._wake:
                    continue
                with contextlib.suppress(BlockingIOError):
                    frame = os.read(handle, 65536)
                    for other in self._receivers(handle, frame):
                        count += 1
                        heapq.heappush(late, (time.monotonic() + self.delay, count, other, frame))
            while late and late[0][0] <= time.monotonic():
                _, _, other, frame = heapq.heappop(late)
                with contextlib.suppress(OSError):  # a full queue loses frames, as a real one does
                    os.write(other, frame)

    def _receivers(self, sender: int, frame: bytes) -> Iterator[int]:
        """Yield where a frame goes: to the host with its address, to all if it is for all."""
        for number, (handle, host) in enumerate(self._taps.items(), start=1):
            wanted = frame[0] & 1 or frame[:6] == bytes([2, 0, 0, 0, 0, number])
            joined = frozenset((host, self._taps[sender])) not in self._cuts
            if handle != sender and wanted and joined and self._random.random() >= self.loss:
                yield handle


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise OSError(f"{' '.join(command)}: {done.stderr.strip()}")


def environment(**more: str) -> Mapping[str, str]:
    """Return the environment for a command on a host."""
    return os.environ | {"OMP_NUM_THREADS": "1"} | more
