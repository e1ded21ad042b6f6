"""gmqtt: asyncio with a protocol of its own."""

from __future__ import annotations

import asyncio
import logging

import gmqtt
import lines
from gmqtt.mqtt.constants import MQTTv50, MQTTv311

NAMES = {
    "user": "user_property",
    "response_topic": "response_topic",
    "correlation": "correlation_data",
    "expiry": "message_expiry_interval",
    "content_type": "content_type",
    "subscription_ids": "subscription_identifier",
}


class Gmqtt:
    """One gmqtt client at a time."""

    def __init__(self):
        self._answers = {}

    async def connect(self, *, host, port, transport, path, version, client_id, clean, expiry, will):
        del transport, path  # TCP only
        self._version = version
        extra = {"session_expiry_interval": expiry, "topic_alias_maximum": 16} if version == 5 else {}
        client = self._client = gmqtt.Client(
            client_id,
            clean_session=clean,
            will_message=gmqtt.Message(will["topic"], will["payload"], qos=will["qos"], retain=will["retain"])
            if will
            else None,
            **extra,
        )
        # It reconnects while failures <= retries, so not even 0 stops it; -1 means for ever.
        client.set_config({"reconnect_retries": -2, "reconnect_delay": 0})
        # The packet identifiers of a new client start at 1 again, so its answers are its own.
        answers = self._answers = {}
        connected = asyncio.get_running_loop().create_future()
        client.on_connect = lambda _client, flags, _reason, _properties: connected.set_result(flags)
        client.on_message = _received
        client.on_subscribe = lambda _client, mid, granted, _properties: _future(answers, mid).set_result(granted)
        client.on_unsubscribe = lambda _client, mid, *_: _future(answers, mid).set_result(None)
        client.on_disconnect = lambda *_: lines.emit(event="closed")
        await client.connect(host, port, version=MQTTv50 if version == 5 else MQTTv311)
        return {"session_present": bool(await connected & 1)}

    async def subscribe(self, *, filters, qos, options):
        names = {"no_local": "no_local", "retain_as_published": "retain_as_published"}
        names["retain_handling"] = "retain_handling_options"
        chosen = {names[name]: value for name, value in options.items() if name in names}
        subscriptions = [gmqtt.Subscription(name, qos=qos, **chosen) for name in filters]
        identifier = {"subscription_identifier": options["subscription_id"]} if "subscription_id" in options else {}
        mid = self._client.subscribe(subscriptions, **identifier)
        return {"granted": list(await _future(self._answers, mid))}

    async def unsubscribe(self, *, filter):  # noqa: A002
        await _future(self._answers, self._client.unsubscribe(filter))

    async def publish(self, *, topic, payload, qos, retain, properties):
        extra = {NAMES[name]: value for name, value in properties.items()}
        if "user_property" in extra:
            extra["user_property"] = [tuple(pair) for pair in extra["user_property"]]
        self._client.publish(topic, payload, qos=qos, retain=retain, **extra)
        # The library offers no acknowledgement to wait for; its store of unacknowledged messages is one.
        await self._client._persistent_storage.wait_empty()

    async def disconnect(self):
        await self._client.disconnect()


def _future(answers, mid):
    """The answer to the packet `mid`, wherever it is asked for first: by the sender or by the library."""
    return answers.setdefault(mid, asyncio.get_running_loop().create_future())


def _received(_client, topic, payload, qos, properties):
    found = {}
    for name, theirs in NAMES.items():
        if values := properties.get(theirs):
            if name == "correlation":
                found[name] = lines.encode(values[0])
            else:
                found[name] = values if name in {"user", "subscription_ids"} else values[0]
    lines.emit_message(topic, payload, qos, properties["retain"], found)
    return 0


if __name__ == "__main__":
    logging.basicConfig(level=logging.ERROR)
    lines.run(Gmqtt())
