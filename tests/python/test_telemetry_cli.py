"""`ferromq record` and `ferromq replay`."""

import signal
import subprocess
import sys
import time

import ferromq
import pytest

pl = pytest.importorskip("polars")


@pytest.fixture
def run(broker):
    """Start the command against the broker."""
    started = []

    def run(*arguments):
        command = [sys.executable, "-m", "ferromq", *arguments, "-p", broker.url.rsplit(":", 1)[1]]
        started.append(subprocess.Popen(command, stderr=subprocess.PIPE, text=True))  # noqa: S603
        return started[-1]

    yield run
    for process in started:
        process.kill()
        process.communicate()


def subscribed(broker):
    """Wait until somebody has subscribed."""
    deadline = time.monotonic() + 30
    while broker.stats()["subscriptions"] == 0:
        assert time.monotonic() < deadline, "nobody has subscribed"
        time.sleep(0.01)


def test_what_is_recorded_is_replayed(broker, sync_client, run, tmp_path):
    path = tmp_path / "run.parquet"
    process = run("record", str(path), "-t", "plant/{line}", "-C", "5", "--decode", "json")
    subscribed(broker)
    sync_client.publish_many([(f"plant/L{at}", f'{{"n": {at}}}') for at in range(5)], qos=1)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 0, said
    assert f"{path} is complete" in said
    assert pl.DataFrame(ferromq.read(path)).select("line", "n").rows() == [(f"L{at}", at) for at in range(5)]

    with sync_client.subscribe("again/#") as messages:
        process = run("replay", str(path), "--speed", "max", "--prefix", "again/", "--where", "n >= 3", "-q", "1")
        _, said = process.communicate(timeout=60)
        assert process.returncode == 0, said
        found = [(message.topic, message.json()) for message in messages.take(2, seconds=20)]
    assert found == [("again/plant/L3", {"n": 3}), ("again/plant/L4", {"n": 4})]


def test_a_replay_is_as_it_was_unless_told_otherwise(broker, sync_client, run, tmp_path):
    path = tmp_path / "run.parquet"
    process = run("record", str(path), "-t", "plant/#", "-C", "2", "-q", "1")
    subscribed(broker)
    sync_client.publish("plant/1", "a", qos=1, retain=True, content_type="text/plain")
    sync_client.publish("plant/2", "b")
    _, said = process.communicate(timeout=60)
    assert process.returncode == 0, said
    with sync_client.subscribe("again/#", qos=2, retain_as_published=True) as messages:
        for options, expected in [
            ((), [(1, True), (0, False)]),
            (("--no-retain",), [(1, False), (0, False)]),
            (("--retain", "-q", "2"), [(2, True), (2, True)]),
        ]:
            process = run("replay", str(path), "--speed", "max", "--prefix", "again/", *options)
            _, said = process.communicate(timeout=60)
            assert process.returncode == 0, said
            found = list(messages.take(2, seconds=20))
            assert [(message.qos, message.retain) for message in found] == expected
            assert [message.properties.content_type for message in found] == ["text/plain", None]


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_an_interrupt_completes_the_file(broker, run, tmp_path):
    path = tmp_path / "run.parquet"
    process = run("record", str(path), "-t", "#")
    subscribed(broker)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 0, said
    assert len(ferromq.read(path)) == 0


def test_arguments_that_cannot_be_are_refused(run, tmp_path):
    for arguments, fault in [
        (("record", str(tmp_path / "a.parquet"), "-t", "#", "--decode", "xml"), "no decoder"),
        (("record", str(tmp_path / "no" / "a.parquet"), "-t", "#"), "is no folder"),
        (("replay", "a.parquet", "--where", "a ="), "found the end"),
        (("replay", "a.parquet", "--speed", "-1"), "a number above 0"),
        (("replay", "a.parquet", "--retain", "--no-retain"), "cannot be used with"),
    ]:
        process = run(*arguments)
        _, said = process.communicate(timeout=60)
        assert process.returncode == 2, said
        assert fault in said
