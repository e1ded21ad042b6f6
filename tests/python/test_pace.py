"""Small packets that come or go densely are gathered: nothing is lost by it, and nothing stays behind."""

import asyncio
import socket
import threading

import ferromq
import pytest

COUNT = 3000


class PacketByPacket:
    """A server of MQTT 3.1.1 that writes each packet by itself, in bursts when it is told to."""

    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"mqtt://127.0.0.1:{self.listener.getsockname()[1]}"
        self.orders = threading.Semaphore(0)
        self.sent = 0
        self.acknowledged = 0
        self.is_over = False
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def stop(self):
        self.is_over = True
        self.orders.release()
        self.thread.join(20)
        self.listener.close()
        assert not self.thread.is_alive()

    def serve(self):
        connection, _ = self.listener.accept()
        with connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.recv(4096)
            connection.sendall(b"\x20\x02\x00\x00")
            subscribe = connection.recv(4096)
            connection.sendall(b"\x90\x03" + subscribe[2:4] + b"\x01")
            while self.orders.acquire() and not self.is_over:
                for _ in range(COUNT):
                    payload = self.sent.to_bytes(4, "big")
                    identifier = (self.sent % 60_000 + 1).to_bytes(2, "big")
                    connection.sendall(b"\x32\x09\x00\x01x" + identifier + payload)
                    self.sent += 1
                left = COUNT * 4
                while left:
                    read = len(connection.recv(min(left, 65_536)))
                    if not read:
                        return
                    left -= read
                self.acknowledged += COUNT


@pytest.mark.parametrize("ack", ["auto", "processed"])
async def test_what_a_server_writes_packet_by_packet_comes_to_its_last_packet(ack, within):
    server = PacketByPacket()
    client = ferromq.Client(server.url, version=4, reconnect=None)
    await within(client.connect())
    messages = client.subscribe("x", qos=1, ack=ack)

    async def burst(start):
        server.orders.release()
        for number in range(start, start + COUNT):
            assert int.from_bytes((await anext(messages)).payload, "big") == number

    for round_ in range(3):
        await within(burst(round_ * COUNT))
    assert server.sent == 3 * COUNT
    await within(client.disconnect())
    server.stop()
    # With `processed`, the last message was not followed by another one.
    assert server.acknowledged == (3 if ack == "auto" else 2) * COUNT


@pytest.mark.parametrize("qos", [0, 1])
async def test_what_was_published_leaves_though_the_loop_is_held_up(broker, qos):
    with ferromq.SyncClient(broker.url) as other:
        messages = other.subscribe("x", qos=qos)
        async with ferromq.Client(broker.url) as client:
            for round_ in range(5):
                publications = [client.publish("x", str(n), qos=qos) for n in range(COUNT)]
                # This blocks the thread of the loop: no callback of it is called.
                received = [int(m.text()) for m in messages.take(COUNT, seconds=20)]
                assert received == list(range(COUNT)), round_
                await asyncio.gather(*publications)
