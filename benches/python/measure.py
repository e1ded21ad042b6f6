"""One library does one thing, in a process of its own.

measure.py PEER WORKLOAD URL COUNT QOS

Prints `ready` when it is connected and the clock runs, and its figures as JSON when it is done.
"""

import asyncio
import importlib
import inspect
import logging
import sys

from meter import Meter

MODULES = {"ferromq": "ferro", "paho-mqtt": "paho", "aiomqtt": "aio", "gmqtt": "gm", "amqtt": "am"}


def main() -> None:
    """Run it."""
    logging.disable(logging.CRITICAL)
    peer, workload, url, count, qos = sys.argv[1:6]
    module = importlib.import_module(f"peers.{MODULES[peer]}")
    meter = Meter()
    ending = getattr(module, workload)(url, int(count), int(qos), meter)
    if inspect.iscoroutine(ending):
        asyncio.run(ending)
    meter.report()


if __name__ == "__main__":
    main()
