"""A web application with one MQTT client: connected with it, reconnecting by itself, shared by all requests.

uvicorn fastapi_app:app
"""

import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import ferromq
from fastapi import FastAPI, HTTPException, Request, WebSocket

router = ferromq.Router()
latest: dict[int, float] = {}


@router.on("plant/{line}/temp")
def take(line: int, payload: float) -> None:
    """Keep the last reading of each line."""
    latest[line] = payload


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncGenerator[None, None]:
    """Connect before the first request, and disconnect after the last."""
    async with ferromq.Client(os.environ.get("MQTT_URL", "mqtt://localhost")) as client, router.running(client):
        app.state.mqtt = client
        yield


app = FastAPI(lifespan=lifespan)


@app.get("/lines/{line}")
async def reading(line: int) -> dict[str, float]:
    """The last reading of a line."""
    if line not in latest:
        raise HTTPException(404, f"line {line} has sent nothing yet")
    return {"celsius": latest[line]}


@app.post("/lines/{line}/setpoint")
async def set_point(line: int, celsius: float, request: Request) -> dict[str, bool]:
    """Tell a line; the answer comes when the broker has acknowledged it."""
    client: ferromq.Client = request.app.state.mqtt
    try:
        await client.publish(f"plant/{line}/setpoint", celsius, encode="json", qos=1, timeout=2)
    except ferromq.FerroMQError as error:
        raise HTTPException(503 if error.retryable else 502, str(error)) from error
    return {"accepted": True}


@app.websocket("/lines/{line}/live")
async def live(socket: WebSocket, line: int) -> None:
    """Every reading of a line, as it comes; a browser that is slow misses the old ones."""
    client: ferromq.Client = socket.app.state.mqtt
    await socket.accept()
    async with client.subscribe(f"plant/{line}/temp", maxsize=100, overflow="drop_oldest") as readings:
        async for message in readings:
            await socket.send_text(message.text())
