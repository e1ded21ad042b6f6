"""Request and response: MQTT 5 response topics, as calls."""

import asyncio

import ferromq


async def serve(broker: ferromq.Broker, ready: asyncio.Event) -> None:
    """Answer requests for sums."""
    async with ferromq.Client(broker) as client:
        requests = client.serve("rpc/add")
        async with requests:
            ready.set()
            async for request in requests:
                await request.respond(str(sum(int(number) for number in request.text().split(","))))


async def main() -> None:
    """Ask for one."""
    async with ferromq.Broker() as broker:
        ready = asyncio.Event()
        server = asyncio.create_task(serve(broker, ready))
        await ready.wait()
        async with ferromq.Client(broker) as client:
            reply = await client.request("rpc/add", "2,3", timeout=2)
            print(reply.text())
        server.cancel()
        await asyncio.gather(server, return_exceptions=True)


asyncio.run(main())
