"""The adapters' side of the JSON lines that harness/peer.py describes."""

from __future__ import annotations

import asyncio
import base64
import inspect
import json
import sys
import threading

LINE_BYTES_MAX = 64 * 1024 * 1024

_out = threading.Lock()


def run(adapter: object) -> None:
    """Answer each line on standard input with the adapter's coroutine of that name, until it ends."""
    asyncio.run(_serve(adapter))


def emit(**line: object) -> None:
    with _out:
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()


def emit_message(topic: str, payload: bytes, qos: int, retain: bool, properties: dict | None = None) -> None:
    emit(
        event="message", topic=topic, payload=encode(payload), qos=qos, retain=bool(retain), properties=properties or {}
    )


def encode(data: bytes) -> str:
    return base64.b64encode(bytes(data)).decode()


def decode(text: str) -> bytes:
    return base64.b64decode(text)


async def _serve(adapter: object) -> None:
    reader = asyncio.StreamReader(limit=LINE_BYTES_MAX)
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    tasks = set()
    while line := await reader.readline():
        # Started in order and not awaited here, so publishes are sent in order and acknowledged as they will be.
        task = loop.create_task(_answer(adapter, json.loads(line)))
        tasks.add(task)
        task.add_done_callback(tasks.discard)


async def _answer(adapter: object, request: dict) -> None:
    number, op = request.pop("id"), request.pop("op")
    if "payload" in request:
        request["payload"] = decode(request["payload"])
    if request.get("will"):
        request["will"]["payload"] = decode(request["will"]["payload"])
    if "correlation" in request.get("properties", {}):
        request["properties"]["correlation"] = decode(request["properties"]["correlation"])
    try:
        result = getattr(adapter, op)(**request)
        if inspect.isawaitable(result):
            result = await result
    except Exception as error:
        emit(id=number, error=f"{type(error).__name__}: {error}")
    else:
        emit(id=number, ok=result or {})
