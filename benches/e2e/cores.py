"""Which processors a program may use.

Where the system places broker and load decides more than either does, when each message comes alone: waking a thread of
another processor costs more than reading and writing the message. FerroMQ has as many shards as it may use processors.
"""

import contextlib
import os
from collections.abc import Iterator

Cores = frozenset[int]
"""Numbers of processors; empty is all that there are."""

ALL: Cores = frozenset()


def parsed(text: str) -> tuple[Cores, Cores]:
    """The broker's and the load's, of `0:1` or `0,2:1,3`."""
    try:
        broker, load = (frozenset(map(int, part.split(","))) for part in text.split(":"))
    except ValueError:
        message = f"{text!r} is not like 0:1 or 0,2:1,3, the broker's processors and the load's"
        raise ValueError(message) from None
    if missing := (broker | load) - os.sched_getaffinity(0):
        raise ValueError(f"there is no processor {', '.join(map(str, sorted(missing)))} for this program")
    return broker, load


@contextlib.contextmanager
def on(cores: Cores) -> Iterator[None]:
    """What is started in the block stays on these."""
    if not cores:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
