"""What is not counted by the message: importing a library, and starting a broker inside the process.

costs.py import PEER | broker_start PEER COUNT

Prints a JSON object.
"""

import asyncio
import contextlib
import importlib
import json
import logging
import sys
import time
from typing import Any

MODULES = {
    "ferromq": ("ferromq", "Client"),
    "paho-mqtt": ("paho.mqtt.client", "Client"),
    "aiomqtt": ("aiomqtt", "Client"),
    "gmqtt": ("gmqtt", "Client"),
    "amqtt": ("amqtt.client", "MQTTClient"),
}

CONNECT = b"\x10\x0f\x00\x04MQTT\x04\x02\x00\x3c\x00\x03one"


def import_cost(peer: str) -> dict[str, Any]:
    """CPU of the import, up to and with the client class."""
    module, name = MODULES[peer]
    began, used = time.perf_counter(), time.process_time()
    getattr(importlib.import_module(module), name)
    return {"cpu_s": time.process_time() - used, "wall_s": time.perf_counter() - began, "count": 1}


def ferromq_start(count: int) -> dict[str, Any]:
    """From `start` to CONNACK, over TCP and over an in-memory pipe."""
    import ferromq  # noqa: PLC0415 - other libraries are measured without it

    samples: dict[str, list[float]] = {"samples": [], "memory": []}
    for name, found in samples.items():
        for _ in range(count):
            broker = ferromq.Broker()
            began = time.perf_counter()
            broker.start()
            client = ferromq.SyncClient(broker if name == "memory" else broker.url).connect()
            found.append(time.perf_counter() - began)
            client.disconnect()
            broker.stop()
    return {"count": count, "wall_s": sum(samples["samples"]), "cpu_s": 0.0, **samples}


async def amqtt_start(count: int) -> dict[str, Any]:
    """The same by TCP; the client is a bare socket, so that only the broker is counted."""
    from amqtt.broker import Broker  # noqa: PLC0415 - optional

    config = {
        "listeners": {"default": {"type": "tcp", "bind": "127.0.0.1:0"}},
        "plugins": {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}},
    }
    samples = []
    for _ in range(count):
        broker = Broker(config)
        began = time.perf_counter()
        await broker.start()
        port = broker._servers["default"].instance.sockets[0].getsockname()[1]  # noqa: SLF001 - it does not say
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(CONNECT)
        connack = await reader.readexactly(4)
        samples.append(time.perf_counter() - began)
        if connack[0] != 0x20:  # noqa: PLR2004 - CONNACK
            raise RuntimeError(f"no CONNACK but {connack!r}")
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
        await broker.shutdown()
    return {"count": count, "wall_s": sum(samples), "cpu_s": 0.0, "samples": samples}


def main() -> None:
    """Measure one of them."""
    logging.disable(logging.CRITICAL)
    what, peer, *rest = sys.argv[1:]
    if what == "import":
        found = import_cost(peer)
    elif peer == "ferromq":
        found = ferromq_start(int(rest[0]))
    else:
        found = asyncio.run(amqtt_start(int(rest[0])))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
