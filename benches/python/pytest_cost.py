"""What one more pytest test costs that has a broker of its own.

    python benches/python/pytest_cost.py [--tests 400] [--runs 3]

pytest runs with many tests and with few, in a process of its own; the difference in time, by the difference in tests,
is what one more costs. It counts all of it: fixtures, the broker, its clients, the round trip, taking leave. It leaves
out what pytest does once and keeps, which is to compile the file. An empty test with an empty fixture tells what of it
is pytest's own. amqtt, a broker in Python, does the same in the same run if it is installed.
"""

import argparse
import importlib.util
import resource
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path
from typing import NamedTuple

FEW = 20

SUITES = {
    "empty test": """
        def test_{n}():
            pass
    """,
    "empty test with an empty fixture": """
        def test_{n}(nothing):
            pass
    """,
    "ferromq: broker": """
        def test_{n}(mqtt_broker):
            assert mqtt_broker.running
    """,
    "ferromq: broker, client, capture, round trip (sync)": """
        def test_{n}(mqtt_broker, mqtt_sync_client, mqtt_capture):
            mqtt_sync_client.publish("a/{n}", b"1")
            assert mqtt_capture.wait_for("a/+").payload == b"1"
    """,
    "empty async test": """
        async def test_{n}():
            pass
    """,
    "ferromq: broker, client, capture, round trip (async)": """
        async def test_{n}(mqtt_broker, mqtt_client, mqtt_capture):
            await mqtt_client.publish("a/{n}", b"1")
            assert (await mqtt_capture.wait_for("a/+")).payload == b"1"
    """,
    "ferromq: broker, client by TCP, round trip (async)": """
        async def test_{n}(mqtt_broker):
            async with ferromq.Client(mqtt_broker.url) as client, client.subscribe("a/+") as messages:
                await client.publish("a/{n}", b"1")
                assert (await anext(messages)).payload == b"1"
    """,
    "amqtt: broker, client by TCP, round trip (async)": """
        async def test_{n}():
            broker = Broker(CONFIG)
            await broker.start()
            port = broker._servers["default"].instance.sockets[0].getsockname()[1]
            client = MQTTClient(config={{"auto_reconnect": False}})
            await client.connect(f"mqtt://127.0.0.1:{{port}}/")
            await client.subscribe([("a/+", 0)])
            await client.publish("a/{n}", b"1", qos=0)
            message = await client.deliver_message()
            assert bytes(message.data) == b"1"
            await client.disconnect()
            await broker.shutdown()
    """,
}

HEADS = {
    "empty test with an empty fixture": """
        import pytest
        @pytest.fixture
        def nothing():
            yield
    """,
    "ferromq": "import ferromq\n",
    "amqtt": """
        import logging
        from amqtt.broker import Broker
        from amqtt.client import MQTTClient
        logging.disable(logging.CRITICAL)
        CONFIG = {"listeners": {"default": {"type": "tcp", "bind": "127.0.0.1:0"}},
                  "plugins": {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}}}
    """,
}


OF_PEER = {
    "ferromq": "ferromq: broker, client by TCP, round trip (async)",
    "amqtt": "amqtt: broker, client by TCP, round trip (async)",
}
"""The same test with each library."""


class Cost(NamedTuple):
    """Milliseconds of wall clock and of CPU."""

    wall: float
    cpu: float


def pytest_cost(suite: str, count: int, folder: Path) -> Cost:
    """What pytest takes for so many tests."""
    head = textwrap.dedent(HEADS.get(suite.partition(":")[0], ""))
    body = "".join(textwrap.dedent(SUITES[suite]).format(n=n) for n in range(count))
    path = folder / "test_cost.py"
    path.write_text(head + body, encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-o", "asyncio_mode=auto", "-p", "no:cacheprovider", str(path)]
    command += ["-o", "asyncio_default_fixture_loop_scope=function", "-W", "ignore", "--no-header", "-p", "no:xdist"]
    # Compiles the file and rewrites its assertions.
    subprocess.run([*command, "--collect-only"], capture_output=True, cwd=folder, check=False)
    began, used_before = time.perf_counter(), children_cpu()
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False)
    wall = time.perf_counter() - began
    if done.returncode:
        raise RuntimeError(f"{suite}: {done.stdout[-3000:]}{done.stderr[-1000:]}")
    return Cost(wall * 1e3, (children_cpu() - used_before) * 1e3)


def children_cpu() -> float:
    """Seconds of CPU that processes started from here, and ended, have used."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def one_more(suite: str, tests: int, folder: Path) -> Cost:
    """Milliseconds for one more test."""
    few, many = pytest_cost(suite, FEW, folder), pytest_cost(suite, FEW + tests, folder)
    return Cost((many.wall - few.wall) / tests, (many.cpu - few.cpu) / tests)


def main() -> None:
    """Measure all suites; of each the least of all runs, as what is added to it is other people's."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--tests", type=int, default=400, help="tests more (default 400)")
    parser.add_argument("--runs", type=int, default=3, help="runs of each, of which the least counts")
    arguments = parser.parse_args()
    print("| milliseconds | wall | CPU |\n|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for suite in SUITES:
            if suite.startswith("amqtt") and importlib.util.find_spec("amqtt") is None:
                print("| amqtt is not installed: pip install amqtt | | |")
                continue
            tests = arguments.tests if not suite.startswith("amqtt") else max(arguments.tests // 8, 1)
            found = [one_more(suite, tests, Path(folder)) for _ in range(arguments.runs)]
            wall, cpu = min(cost.wall for cost in found), min(cost.cpu for cost in found)
            print(f"| one more {suite} | {wall:.2f} | {cpu:.2f} |", flush=True)


if __name__ == "__main__":
    main()
