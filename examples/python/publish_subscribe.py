"""Publish and subscribe, with a broker inside the process."""

import asyncio

import ferromq


async def main() -> None:
    """Send three readings and take them in."""
    async with (
        ferromq.Broker() as broker,
        ferromq.Client(broker.url) as client,
        client.subscribe("plant/{line}/temp", qos=1) as readings,
    ):
        for line in range(3):
            await client.publish(f"plant/{line}/temp", {"celsius": 20 + line}, qos=1, encode="json")
        count = 0
        async for message in readings:
            print(message.params["line"], message.json()["celsius"])
            count += 1
            if count == 3:  # noqa: PLR2004 - as many as were sent
                break


asyncio.run(main())
