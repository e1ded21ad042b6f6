"""What a type checker must accept, and infer: mypy reads this file in strict mode, and nothing runs it."""

import asyncio
from typing import TYPE_CHECKING, Any, assert_type

import ferromq

if TYPE_CHECKING:
    from collections.abc import Coroutine


async def verbs_are_coroutines(client: ferromq.Client) -> None:
    publishing: ferromq.Operation[ferromq.PublishAck] = client.publish("x", b"1", qos=1)
    coroutine: Coroutine[Any, Any, ferromq.PublishAck] = publishing
    task = asyncio.create_task(client.publish("x"))
    assert_type(task, "asyncio.Task[ferromq.PublishAck]")
    assert_type(await task, ferromq.PublishAck)
    assert_type(await coroutine, ferromq.PublishAck)
    many = client.publish_many([b"1"], topic="x")
    assert_type(await asyncio.gather(client.publish("x"), many), tuple[ferromq.PublishAck, int])
    assert_type(await asyncio.wait_for(client.request("rpc/x"), 1), ferromq.Message)
    async with asyncio.TaskGroup() as group:
        assert_type(group.create_task(client.connect()), "asyncio.Task[ferromq.Client]")


async def streams_have_items(client: ferromq.Client) -> None:
    events: ferromq.Stream[Any] = client.events()
    subscription: ferromq.Subscription[ferromq.Message] = client.subscribe("a", ["b"])
    async for message in subscription:
        assert_type(message, ferromq.Message)
    batches: ferromq.Stream[list[ferromq.Message]] = subscription.batches()
    async for batch in batches:
        assert_type(batch[0].payload, bytes)
    assert_type(await asyncio.create_task(anext(events)), Any)
    async for request in client.serve("rpc"):
        assert_type(request, ferromq.Request)
        assert_type(await request.respond(b""), ferromq.PublishAck)
