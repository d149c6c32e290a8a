"""Scenes side by side on one cluster: a scene begins while there are fewer blocks waiting than workers want."""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from scenelift.pipeline.cluster import Cluster
from scenelift.pipeline.jobs.blocks import BlockRecord
from scenelift.pipeline.jobs.running import Progress
from scenelift.workflows.archive.entries import Entry

AHEAD = 2
"""Blocks that should be waiting or running for every worker."""
MOST = 64
"""Scenes open at once, however many workers there are: each is a thread of the driver."""
CHECK_SECONDS = 2.0
"""Seconds between two looks at how many workers there are."""

Perform = Callable[[Entry, int, Progress], Any]
"""Does a scene, given its place in the queue and whom to tell of its blocks; returns what became of it."""


@dataclass
class _Scene:
    """A scene under way: None until it says how many blocks it has left."""

    thread: threading.Thread
    left: int | None = None


@dataclass
class Crew:
    """Does scenes on a cluster, several at a time; in this process, one after the other."""

    place: Cluster
    perform: Perform
    on_block: Callable[[BlockRecord], None]
    """Told of every finished block, in the caller's thread."""
    stopping: threading.Event = field(default_factory=threading.Event)
    """Set when the run ends early: what then fails says nothing about the scene."""
    _scenes: dict[str, _Scene] = field(default_factory=dict)
    _events: queue.SimpleQueue[tuple[str, str, Any]] = field(default_factory=queue.SimpleQueue)

    def run(self, entries: Sequence[Entry]) -> Iterator[Any]:
        """Yield what became of each scene, in the order they end.

        Raises
        ------
        BaseException
            What a scene raised (failures of a scene alone are returned, not raised).
        """
        try:
            if self.place.in_process:
                for order, entry in enumerate(entries):
                    yield self.perform(entry, order, self._tell)
                return
            yield from self._side_by_side(deque(enumerate(entries)))
        except BaseException:
            self.stopping.set()
            raise

    def join(self, seconds: float) -> None:
        """Wait a moment for scenes that are being given up, so that they let go of their locks."""
        end = time.monotonic() + seconds
        for scene in self._scenes.values():
            scene.thread.join(max(0.0, end - time.monotonic()))

    def _tell(self, total: int, record: BlockRecord | None) -> None:
        if record is not None:
            self.on_block(record)

    def _side_by_side(self, waiting: deque[tuple[int, Entry]]) -> Iterator[Any]:
        slots, looked = self.place.slots, time.monotonic()
        while waiting or self._scenes:
            while waiting and self._hungry(slots):
                self._start(*waiting.popleft())
            try:
                kind, name, value = self._events.get(timeout=CHECK_SECONDS)
            except queue.Empty:
                kind = ""
            if time.monotonic() - looked > CHECK_SECONDS:
                slots, looked = self.place.slots, time.monotonic()
            if kind == "blocks":
                self._scenes[name].left = value
            elif kind == "block":
                self._scenes[name].left = (self._scenes[name].left or 1) - 1
                self.on_block(value)
            elif kind == "failed":
                raise value
            elif kind == "ended":
                del self._scenes[name]
                yield value

    def _hungry(self, slots: int) -> bool:
        """Whether another scene should begin: one that has not counted its blocks yet counts as one block."""
        ahead = sum(1 if scene.left is None else scene.left for scene in self._scenes.values())
        return ahead < AHEAD * max(1, slots) and len(self._scenes) < min(MOST, 4 + 4 * max(1, slots))

    def _start(self, order: int, entry: Entry) -> None:
        def told(total: int, record: BlockRecord | None) -> None:
            self._events.put(("blocks", entry.id, total) if record is None else ("block", entry.id, record))

        def work() -> None:
            try:
                self._events.put(("ended", entry.id, self.perform(entry, order, told)))
            except BaseException as error:  # noqa: BLE001 - raised again in the caller's thread
                self._events.put(("failed", entry.id, error))

        # A daemon: a run that is told to stop does not wait for a scene that hangs.
        thread = threading.Thread(target=work, daemon=True, name=f"scene-{entry.id}")
        self._scenes[entry.id] = _Scene(thread)
        thread.start()
