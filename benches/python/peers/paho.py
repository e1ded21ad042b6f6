"""paho-mqtt, whose network loop is a thread."""

import json
import threading
import time
from typing import Any
from urllib.parse import urlsplit

import paho.mqtt.client as mqtt
from meter import Meter, all_or_idle_blocking
from paho.mqtt.enums import CallbackAPIVersion
from payloads import block, is_last, json_sum
from table import BLOCK, JSON_TOPIC, TOPIC, WINDOW

SECONDS_MAX = 120


def connected(url: str) -> mqtt.Client:
    """A client that is connected, and whose loop runs."""
    ready = threading.Event()
    client = mqtt.Client(CallbackAPIVersion.VERSION2)
    client.on_connect = lambda *_: ready.set()
    client.max_inflight_messages_set(WINDOW)
    client.connect(urlsplit(url).hostname or "127.0.0.1", urlsplit(url).port or 1883)
    client.loop_start()
    ready.wait()
    return client


def subscribe(client: mqtt.Client, topic: str, qos: int) -> None:
    """Return with SUBACK."""
    ready = threading.Event()
    client.on_subscribe = lambda *_: ready.set()
    client.subscribe(topic, qos)
    ready.wait()


def receive(url: str, count: int, qos: int, meter: Meter) -> None:
    """`on_message`, topic and payload read."""
    received, last, done = 0, b"", threading.Event()

    def arrived(_client: mqtt.Client, _data: object, message: mqtt.MQTTMessage) -> None:
        nonlocal received, last
        _, last = message.topic, bytes(message.payload)
        received += 1
        if received == count:
            done.set()

    client = connected(url)
    client.on_message = arrived
    subscribe(client, TOPIC, qos)
    meter.start()
    all_or_idle_blocking(done, lambda: received)
    meter.stop(received, is_complete=is_last(last, count))
    client.disconnect()
    client.loop_stop()


def publish(url: str, count: int, qos: int, meter: Meter) -> None:
    """`publish` queues; at the end of each thousand it is waited for."""
    payloads, client = block(), connected(url)
    meter.start()
    for _ in range(count // BLOCK):
        for payload in payloads:
            last = client.publish(TOPIC, payload, qos)
        last.wait_for_publish(SECONDS_MAX)
    client.publish("bench/end", b"", 1).wait_for_publish(SECONDS_MAX)
    meter.stop(count)
    client.disconnect()
    client.loop_stop()


publish_windowed = publish
"""It keeps a window of its own, of a hundred."""


def sequential(url: str, count: int, qos: int, meter: Meter) -> None:
    """Each after the acknowledgement of the one before."""
    payload, samples, client = block()[0], [], connected(url)
    meter.start()
    for _ in range(count):
        began = time.perf_counter()
        client.publish(TOPIC, payload, qos).wait_for_publish(SECONDS_MAX)
        samples.append(time.perf_counter() - began)
    meter.stop(count, samples=samples)
    client.disconnect()
    client.loop_stop()


def frame(url: str, count: int, qos: int, meter: Meter) -> None:
    """A list of dictionaries, and a frame of them."""
    import pandas as pd  # noqa: PLC0415 - loaded before the clock runs

    rows: list[dict[str, Any]] = []
    done = threading.Event()

    def arrived(_client: mqtt.Client, _data: object, message: mqtt.MQTTMessage) -> None:
        row = json.loads(message.payload)
        row["topic"] = message.topic
        rows.append(row)
        if len(rows) == count:
            done.set()

    client = connected(url)
    client.on_message = arrived
    subscribe(client, f"{JSON_TOPIC}/#", qos)
    meter.start()
    all_or_idle_blocking(done, lambda: len(rows))
    found = pd.DataFrame(rows)
    meter.stop(len(found), is_complete=bool(abs(found["value"].sum() - json_sum(count)) < 1))
    client.disconnect()
    client.loop_stop()
