"""What outlasts a process: the broker's store and the client's spool."""

import asyncio
import contextlib
import signal
import subprocess
import sys
import textwrap

import ferromq
import pytest

EXPIRY = 3600


async def take(sub, count):
    """So many messages, and what is missing if they do not come."""
    messages = []
    try:
        async with asyncio.timeout(30):
            async for message in sub:
                messages.append(message)
                if len(messages) == count:
                    break
    except TimeoutError:
        pytest.fail(f"{len(messages)} of {count} messages: {[m.payload for m in messages][-3:]}")
    return messages


# --- Broker(store=) --------------------------------------------------------------------------------------------------


async def test_sessions_and_retained_messages_outlast_the_broker(tmp_path):
    broker = ferromq.Broker(store=tmp_path / "data")
    session = ferromq.Session(EXPIRY)
    async with broker:
        async with ferromq.Client(broker, client_id="away", session=session) as away:
            subscription = await away.subscribe("t/#", qos=2)
        del subscription  # not earlier, or it is ended at the server, too
        await broker.settled()  # the broker has read that nobody is there
        async with ferromq.Client(broker) as publisher:
            await publisher.publish("t/1", b"waits", qos=1)
            await publisher.publish("t/2", b"waits once", qos=2)
            await publisher.publish("state", b"on", qos=1, retain=True)
    async with broker:
        assert list(broker.retained["#"]) == ["state"]
        async with (
            ferromq.Client(broker, client_id="away", session=session) as away,
            away.subscribe("t/#", qos=2) as sub,
        ):
            assert away.session_present
            assert [m.payload for m in await take(sub, 2)] == [b"waits", b"waits once"]


def test_a_store_belongs_to_one_broker(tmp_path):
    with (
        ferromq.Broker(store=tmp_path),
        pytest.raises(ferromq.StorageError, match="in use by another process") as caught,
    ):
        ferromq.Broker(store=tmp_path).start()
    assert isinstance(caught.value, OSError)
    with ferromq.Broker(config={"store": str(tmp_path)}):
        pass


def test_a_damaged_store_is_not_overwritten(tmp_path):
    (tmp_path / "broker.redb").write_bytes(b"something else, and not a database")
    with pytest.raises(ferromq.StorageError, match=r"broker\.redb is damaged.*move it aside"):
        ferromq.Broker(store=tmp_path).start()
    assert (tmp_path / "broker.redb").read_bytes().startswith(b"something else")


def test_durability_is_a_setting(tmp_path):
    with ferromq.Broker(store=tmp_path, config={"store_durability": "process"}):
        pass
    with pytest.raises(ferromq.InvalidArgument, match="fsync"):
        ferromq.Broker(store=tmp_path, config={"store_durability": "fsnyc"})


# --- Session(spool=) -------------------------------------------------------------------------------------------------

PUBLISHER = """
    import asyncio, sys, ferromq

    url, spool, count = sys.argv[1], sys.argv[2], int(sys.argv[3])

    async def main():
        session = ferromq.Session(3600, spool=spool)
        async with ferromq.Client(url, client_id="publisher", session=session) as client:
            for number in range(count):
                client.publish_nowait("t", str(number), qos=number % 2 + 1)
                if number % 50 == 49:
                    await client.flush()
                    print(number + 1, flush=True)
            # Until it is killed.
            await asyncio.Event().wait()

    asyncio.run(main())
"""


def start(program, *arguments):
    command = [sys.executable, "-c", textwrap.dedent(program), *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)  # noqa: S603


@contextlib.contextmanager
def killed(process):
    """Whatever happens, it ends."""
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.mark.parametrize("slow", [False, True], ids=["fast", "slow"])
async def test_a_second_process_completes_what_a_killed_one_had_accepted(tmp_path, slow):
    spool, count, enough = tmp_path / "a.db", 4000, 1000
    with ferromq.Broker(faults=slow) as broker:
        if slow:
            # Acknowledgements come so late that most is still under way.
            broker.faults.delay("PUBACK", by=0.2)
            broker.faults.delay("PUBREC", by=0.2)
        async with (
            ferromq.Client(broker, client_id="subscriber") as subscriber,
            subscriber.subscribe("t", qos=2) as sub,
        ):
            with killed(start(PUBLISHER, broker.url, spool, count)) as process:
                accepted = 0
                while accepted < enough:
                    accepted = int(await asyncio.to_thread(process.stdout.readline))
                process.send_signal(signal.SIGKILL)
                process.wait()
                accepted = int(([*process.stdout] or [accepted])[-1])
            if slow:
                broker.faults.clear()
            session = ferromq.Session(EXPIRY, spool=spool)
            async with ferromq.Client(broker.url, client_id="publisher", session=session) as client:
                assert client.session_present
                # Leaving waits for what the first process had left.
                await client.publish("t", b"end", qos=1)
            numbers = []
            async with asyncio.timeout(60):
                async for message in sub:
                    if message.payload == b"end":
                        break
                    numbers.append(int(message.payload))
    assert set(range(accepted)) <= set(numbers)
    once = [number for number in numbers if number % 2 == 1]
    assert len(once) == len(set(once))
    assert once == sorted(once)


async def test_what_was_published_offline_is_sent_before_what_is_new(tmp_path):
    broker = ferromq.Broker(listeners=["tcp://127.0.0.1:0"])
    session = ferromq.Session(EXPIRY, spool=tmp_path / "a.db")
    async with broker:
        client = ferromq.Client(broker, client_id="c", session=session, timeout=0.2)
        await client.connect()
    client.publish_nowait("t", b"1", qos=1)
    client.publish_nowait("t", b"2", qos=2)
    client.publish_nowait("t", b"not kept", qos=0)
    await client.flush()
    assert (client.spooled, client.stats()["spooled"]) == (2, 2)
    # Nobody is there to send it to: it stays where it is.
    await client.disconnect()
    assert client.spooled == 0
    async with broker, ferromq.Client(broker) as other, other.subscribe("t", qos=2) as sub:
        async with ferromq.Client(broker, client_id="c", session=session) as client:
            await client.publish("t", b"3", qos=1)
            assert [m.payload for m in await take(sub, 3)] == [b"1", b"2", b"3"]
            assert client.stats()["given_up"] == 0
        async with ferromq.Client(broker, client_id="c", session=session) as client:
            assert client.spooled == 0


def test_the_blocking_client_has_a_spool_too(tmp_path):
    session = ferromq.Session(EXPIRY, spool=tmp_path / "a.db")
    broker = ferromq.Broker()
    with broker:
        client = ferromq.SyncClient(broker, client_id="c", session=session, timeout=0.2)
        client.connect()
    client.publish_nowait("t", b"1", qos=2)
    client.flush()
    assert client.spooled == 1
    client.disconnect()
    with (
        broker,
        ferromq.SyncClient(broker) as other,
        other.subscribe("t") as sub,
        ferromq.SyncClient(broker, client_id="c", session=session),
    ):
        assert sub.get(timeout=30).payload == b"1"


async def test_a_spool_belongs_to_one_client_at_a_time(tmp_path):
    spool = tmp_path / "a.db"
    session = ferromq.Session(EXPIRY, spool=spool)
    with ferromq.Broker() as broker:
        async with ferromq.Client(broker, client_id="c", session=session):
            with pytest.raises(ferromq.StorageError, match="in use by another process") as caught:
                await ferromq.Client(broker, client_id="c", session=session).connect()
            assert caught.value.retryable
        with pytest.raises(ferromq.StorageError, match='belongs to the client "c", not to "d"'):
            await ferromq.Client(broker, client_id="d", session=session).connect()
        spool.write_bytes(b"no database")
        with pytest.raises(ferromq.StorageError, match=r"a\.db is damaged"):
            await ferromq.Client(broker, client_id="c", session=session).connect()


async def test_a_spool_is_bounded(tmp_path, within):
    session = ferromq.Session(EXPIRY, spool=tmp_path / "a.db", spool_bytes_max=10_000)
    with ferromq.Broker(faults=True) as broker:
        async with ferromq.Client(broker, client_id="c", session=session) as client:
            rule = broker.faults.drop("PUBACK")
            for _ in range(3):
                client.publish_nowait("t", bytes(3000), qos=1)
            with pytest.raises(ferromq.QueueFull):
                client.publish_nowait("t", bytes(3000), qos=1)
            waiting = asyncio.ensure_future(client.publish("t", bytes(3000), qos=1))
            too_large = asyncio.ensure_future(client.publish("t", bytes(20_000), qos=1))
            await client.flush()
            assert (client.spooled, waiting.done()) == (3, False)
            rule.remove()
            broker.faults.drop_connections()
            await within(waiting)
            with pytest.raises(ferromq.QueueFull):
                await within(too_large)
            assert client.spooled == 0


def test_what_a_spool_needs_is_said_at_once(tmp_path):
    spool = tmp_path / "a.db"
    session = ferromq.Session(EXPIRY, spool=spool)
    assert (session.spool, session.spool_bytes_max) == (spool, 64 << 20)
    assert repr(session) == f'Session(expiry=3600, clean_start=False, spool="{spool}")'
    for arguments in [{"clean_start": True}, {"expiry": 0}]:
        with pytest.raises(ferromq.InvalidArgument, match="spool"):
            ferromq.Session(**{"expiry": EXPIRY, **arguments}, spool=spool)
    with pytest.raises(ferromq.InvalidArgument, match="client_id"):
        ferromq.Client(session=session)
    assert not spool.exists()


async def test_without_a_spool_there_is_nothing_to_flush(client):
    assert client.spooled == 0
    with pytest.raises(ferromq.InvalidArgument, match="no spool"):
        await client.flush()
