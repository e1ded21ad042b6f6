"""aiomqtt: asyncio over paho-mqtt."""

from __future__ import annotations

import asyncio

import aiomqtt
import lines
from paho_properties import connect_properties, publish_properties, received_properties, subscribe_arguments

TIMEOUT_SECONDS = 30


class Aiomqtt:
    """One aiomqtt client at a time."""

    async def connect(self, *, host, port, transport, path, version, client_id, clean, expiry, will):
        self._version = version
        extra = {"clean_start": clean, "properties": connect_properties(version, expiry)}
        self._client = aiomqtt.Client(
            host,
            port,
            identifier=client_id,
            protocol=aiomqtt.ProtocolVersion(version),
            transport="websockets" if transport == "ws" else "tcp",
            websocket_path=path if transport == "ws" else None,
            will=aiomqtt.Will(**will) if will else None,
            timeout=TIMEOUT_SECONDS,
            **(extra if version == 5 else {"clean_session": clean}),
        )
        await self._client.__aenter__()
        self._reader = asyncio.create_task(self._read(self._client))

    async def _read(self, client):
        try:
            async for message in client.messages:
                properties = received_properties(message.properties)
                lines.emit_message(str(message.topic), message.payload, message.qos, message.retain, properties)
        except aiomqtt.MqttError:
            lines.emit(event="closed")

    async def subscribe(self, *, filters, qos, options):
        chosen, properties = subscribe_arguments(self._version, qos, options)
        granted = await self._client.subscribe([(name, chosen or qos) for name in filters], properties=properties)
        return {"granted": [getattr(code, "value", code) for code in granted]}

    async def unsubscribe(self, *, filter):  # noqa: A002
        await self._client.unsubscribe(filter)

    async def publish(self, *, topic, payload, qos, retain, properties):
        await self._client.publish(
            topic, payload, qos=qos, retain=retain, properties=publish_properties(self._version, properties)
        )

    async def disconnect(self):
        # What has arrived is handed over before the iterator is told to stop.
        self._reader.cancel()
        await asyncio.gather(self._reader, return_exceptions=True)
        await self._client.__aexit__(None, None, None)


if __name__ == "__main__":
    lines.run(Aiomqtt())
