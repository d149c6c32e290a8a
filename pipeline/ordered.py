"""Work done in threads and taken in order, few results at a time: memory does not depend on how much there is."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Made = TypeVar("Made")


def in_order(task: Callable[[Item], Made], items: Iterable[Item], threads: int) -> Iterator[Made]:
    """Yield what a task makes of each item, in the order of the items, whatever the number of threads.

    At most one result more than there are threads is held at once. It pays for what lets other threads run: decoding,
    compressing, checksums, arithmetic of arrays.

    Parameters
    ----------
    task : function
        Safe to call in several threads at once.
    items : iterable
    threads : int
        With 1 there are no others: everything is done by the caller.
    """
    if threads <= 1:
        yield from map(task, items)
        return
    with ThreadPoolExecutor(threads, thread_name_prefix="scenelift-publishing") as pool:
        waiting: deque[Future[Made]] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(task, item))
                if len(waiting) > threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for each in waiting:  # those that run are waited for
                each.cancel()
