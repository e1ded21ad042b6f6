"""Brokers and clients by the thousand leave nothing behind: no memory, no threads, no descriptors.

`FERROMQ_LEAK_ROUNDS=10000` makes so many of each; by default it is fewer, so that the suite stays quick.
"""

import os
import sys

import pytest

ROUNDS = int(os.environ.get("FERROMQ_LEAK_ROUNDS", "600"))

HEAD = """
import asyncio, gc, os, pathlib
import ferromq

def state():
    gc.collect()
    status = pathlib.Path("/proc/self/status").read_text()
    rss = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))
    threads = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("Threads"))
    return rss, threads, len(os.listdir("/proc/self/fd"))

def compare(rounds, before, after):
    print(f"{rounds} rounds: RSS {before[0]} -> {after[0]} KiB, threads {before[1]} -> {after[1]}, "
          f"descriptors {before[2]} -> {after[2]}")
    # A leak of one small object a round would be a few hundred bytes; the allocator's own ups and downs are less.
    assert after[0] - before[0] < 2048 + rounds // 5, "memory"
    # Threads that may block, such as those that look up names, come and go.
    assert after[1] <= before[1] + 2, "threads"
    assert after[2] <= before[2], "descriptors"
"""

SYNC = """
def round_trip(number):
    with ferromq.Broker() as broker, ferromq.SyncClient(broker if number % 2 else broker.url) as client:
        with client.subscribe("leak/{n}", qos=1) as messages:
            client.publish(f"leak/{number}", b"x" * 100, qos=1, retain=True)
            assert messages.get(timeout=20).params == {"n": str(number)}

for number in range(WARM):
    round_trip(number)
before = state()
for number in range(ROUNDS):
    round_trip(number)
compare(ROUNDS, before, state())
"""

ASYNC = """
async def round_trip(number):
    async with ferromq.Broker() as broker, ferromq.Client(broker if number % 2 else broker.url) as client:
        async with client.subscribe("leak/{n}", qos=1) as messages:
            await asyncio.gather(*(client.publish(f"leak/{number}", b"x" * 100, qos=1) for _ in range(8)))
            for _ in range(8):
                assert (await anext(messages)).params == {"n": str(number)}

async def main():
    for number in range(WARM):
        await round_trip(number)
    before = state()
    for number in range(ROUNDS):
        await round_trip(number)
    compare(ROUNDS, before, state())

asyncio.run(main())
"""

ABANDONED = """
# Nobody says good-bye: what is not referenced any more must end by itself. That a subscription is lost unread is told.
import warnings
warnings.simplefilter("ignore", RuntimeWarning)
async def main():
    with ferromq.Broker() as broker:
        async def round_trip():
            client = ferromq.Client(broker.url)
            await client.connect()
            await client.subscribe("leak/#")
            client.subscribe("never/made")
            client.publish("leak/1", b"x", qos=1)

        async def gone():
            while broker.clients:
                await asyncio.sleep(0)

        for _ in range(WARM):
            await round_trip()
        gc.collect()
        await gone()
        before = state()
        for number in range(ROUNDS):
            await round_trip()
            if number % 100 == 99:
                gc.collect()
                await gone()
        gc.collect()
        await gone()
        compare(ROUNDS, before, state())

asyncio.run(main())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")
@pytest.mark.parametrize("program", [SYNC, ASYNC, ABANDONED], ids=["sync", "async", "abandoned"])
def test_brokers_and_clients_by_the_thousand_leave_nothing_behind(run_python, program):
    counts = f"ROUNDS, WARM = {ROUNDS}, {max(ROUNDS // 5, 50)}\n"
    sys.stdout.write(run_python(HEAD + counts + program, seconds=60 + ROUNDS // 10))
