"""The clock of a measured process: CPU of all its threads, wall-clock time, memory; and the line that tells of it."""

import asyncio
import json
import resource
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

IDLE_SECONDS_MAX = 3.0


class Meter:
    """Measures from `start` to `stop`. The process that started this one is told both."""

    def __init__(self) -> None:
        self.found: dict[str, Any] = {}
        self._cpu = self._wall = 0.0
        self._memory = 0

    def start(self) -> None:
        """All is ready: from here on it counts, and the sender begins."""
        self._memory = resident_bytes()
        print("ready", flush=True)
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def stop(self, count: int, **more: object) -> None:
        """So many messages were handled."""
        cpu, wall = time.process_time() - self._cpu, time.perf_counter() - self._wall
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        self.found = {"count": count, "cpu_s": cpu, "wall_s": wall, "memory_bytes": peak - self._memory, **more}

    def report(self) -> None:
        """The last line."""
        print(json.dumps(self.found), flush=True)


async def all_or_idle(done: asyncio.Event, progress: Callable[[], int]) -> None:
    """Wait until all has come, or nothing comes any more: then some of it was lost."""
    before = -1
    while before != progress():
        before = progress()
        try:
            async with asyncio.timeout(IDLE_SECONDS_MAX):
                await done.wait()
        except TimeoutError:
            continue
        return


def all_or_idle_blocking(done: threading.Event, progress: Callable[[], int]) -> None:
    """The same for threads."""
    before = -1
    while before != progress():
        before = progress()
        if done.wait(IDLE_SECONDS_MAX):
            return


def resident_bytes() -> int:
    """What the process has in memory now."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) * 1024
    return 0
