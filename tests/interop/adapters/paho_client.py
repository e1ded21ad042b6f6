"""paho-mqtt, callbacks on its own network thread, as most programs use it."""

from __future__ import annotations

import asyncio

import lines
from paho.mqtt import client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from paho_properties import connect_properties, publish_properties, received_properties, subscribe_arguments


class Paho:
    """One paho-mqtt client at a time."""

    def __init__(self):
        self._client = None
        self._answers = {}

    async def connect(self, *, host, port, transport, path, version, client_id, clean, expiry, will):
        loop = asyncio.get_running_loop()
        client = self._client = mqtt.Client(
            CallbackAPIVersion.VERSION2,
            client_id=client_id,
            protocol=version,
            clean_session=clean if version == 4 else None,
            transport="websockets" if transport == "ws" else "tcp",
            reconnect_on_failure=False,
        )
        if transport == "ws":
            client.ws_set_options(path=path)
        if will:
            client.will_set(will["topic"], will["payload"], qos=will["qos"], retain=will["retain"])
        self._version, self._answers = version, {}
        client.on_connect = lambda _c, _u, flags, reason, _p: self._from_thread(loop, "connect", (flags, reason))
        client.on_subscribe = lambda _c, _u, mid, reasons, _p: self._from_thread(loop, mid, reasons)
        client.on_unsubscribe = lambda _c, _u, mid, reasons, _p: self._from_thread(loop, mid, reasons)
        client.on_publish = lambda _c, _u, mid, reason, _p: self._from_thread(loop, mid, reason)
        client.on_message = _received
        client.on_disconnect = lambda *_: lines.emit(event="closed")
        extra = {"clean_start": clean, "properties": connect_properties(version, expiry)} if version == 5 else {}
        await asyncio.to_thread(client.connect, host, port, **extra)
        client.loop_start()
        flags, reason = await self._answer("connect")
        if reason.is_failure:
            raise ConnectionRefusedError(str(reason))
        return {"session_present": flags.session_present}

    async def subscribe(self, *, filters, qos, options):
        chosen, properties = subscribe_arguments(self._version, qos, options)
        _, mid = self._client.subscribe([(name, chosen or qos) for name in filters], properties=properties)
        return {"granted": [reason.value for reason in await self._answer(mid)]}

    async def unsubscribe(self, *, filter):  # noqa: A002
        _, mid = self._client.unsubscribe(filter)
        await self._answer(mid)

    async def publish(self, *, topic, payload, qos, retain, properties):
        info = self._client.publish(topic, payload, qos, retain, publish_properties(self._version, properties))
        reason = await self._answer(info.mid)
        if reason.is_failure:
            raise RuntimeError(str(reason))

    async def disconnect(self):
        self._client.disconnect()
        await asyncio.to_thread(self._client.loop_stop)

    def _from_thread(self, loop, key, value):
        loop.call_soon_threadsafe(lambda: self._future(key).set_result(value))

    async def _answer(self, key):
        try:
            return await self._future(key)
        finally:
            self._answers.pop(key, None)

    def _future(self, key):
        """The answer may come before or after it is asked for; both run on the loop."""
        return self._answers.setdefault(key, asyncio.get_running_loop().create_future())


def _received(_client, _userdata, message):
    properties = received_properties(message.properties)
    lines.emit_message(message.topic, message.payload, message.qos, message.retain, properties)


if __name__ == "__main__":
    lines.run(Paho())
