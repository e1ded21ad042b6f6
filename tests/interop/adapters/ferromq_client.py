"""FerroMQ's own asyncio client."""

from __future__ import annotations

import asyncio

import ferromq
import lines

NAMES = {
    "user": "user_properties",
    "response_topic": "response_topic",
    "correlation": "correlation_data",
    "expiry": "message_expiry",
    "content_type": "content_type",
}
RETAIN_HANDLING = {0: "send", 1: "new", 2: "none"}
TIMEOUT_SECONDS = 30


class FerroMQ:
    """One client at a time."""

    async def connect(self, *, host, port, transport, path, version, client_id, clean, expiry, will):
        url = f"ws://{host}:{port}{path}" if transport == "ws" else f"mqtt://{host}:{port}"
        # Before MQTT 5 a session that is kept is kept for ever.
        kept = expiry if version == 5 else float("inf")
        client = self._client = ferromq.Client(
            url,
            client_id=client_id,
            version=version,
            session=None if clean else ferromq.Session(kept),
            will=ferromq.Will(will["topic"], will["payload"], qos=will["qos"], retain=will["retain"]) if will else None,
            reconnect=False,
            timeout=TIMEOUT_SECONDS,
        )
        await client.connect()
        self._tasks = [asyncio.create_task(_watch(client.events()))]
        return {"session_present": client.session_present}

    async def subscribe(self, *, filters, qos, options):
        chosen = {name: options[name] for name in ("no_local", "retain_as_published") if name in options}
        if "retain_handling" in options:
            chosen["retain_handling"] = RETAIN_HANDLING[options["retain_handling"]]
        subscription = await self._client.subscribe(*filters, qos=qos, **chosen)
        self._tasks.append(asyncio.create_task(_read(subscription)))
        return {"granted": subscription.granted}

    async def unsubscribe(self, *, filter):  # noqa: A002
        await self._client.unsubscribe(filter)

    async def publish(self, *, topic, payload, qos, retain, properties):
        extra = {NAMES[name]: value for name, value in properties.items()}
        if "user_properties" in extra:
            extra["user_properties"] = [tuple(pair) for pair in extra["user_properties"]]
        await self._client.publish(topic, payload, qos=qos, retain=retain, **extra)

    async def disconnect(self):
        await self._client.disconnect()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def _watch(events):
    async for event in events:
        if isinstance(event, ferromq.Disconnected):
            lines.emit(event="closed")


async def _read(subscription):
    async for message in subscription:
        given = message.properties
        found = {name: value for name, theirs in NAMES.items() if (value := getattr(given, theirs))}
        if "correlation" in found:
            found["correlation"] = lines.encode(found["correlation"])
        if given.subscription_identifiers:
            found["subscription_ids"] = list(given.subscription_identifiers)
        lines.emit_message(message.topic, message.payload, message.qos, message.retain, found)


if __name__ == "__main__":
    lines.run(FerroMQ())
