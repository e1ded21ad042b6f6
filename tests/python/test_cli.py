"""The console script is the command line written in Rust."""

import csv
import os
import signal
import subprocess
import sys

import ferromq
import pytest


def command(*arguments):
    return [sys.executable, "-m", "ferromq", *arguments]


def test_it_says_its_version_and_refuses_nonsense():
    done = subprocess.run(command("--version"), capture_output=True, text=True, timeout=60, check=False)  # noqa: S603
    assert (done.returncode, done.stdout) == (0, f"ferromq {ferromq.__version__}\n")
    done = subprocess.run(command("nonsense"), capture_output=True, text=True, timeout=60, check=False)  # noqa: S603
    assert done.returncode != 0
    assert "nonsense" in done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="needs signals by process id")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_broker_command_serves_until_it_is_told_to_stop(number):
    with subprocess.Popen(command("broker", "--port", "0"), stdout=subprocess.PIPE, text=True) as broker:  # noqa: S603
        try:
            listening = broker.stdout.readline().split()
            assert listening[0] == "listening"
            assert broker.stdout.readline() == "ready\n"
            with ferromq.SyncClient(listening[1]) as client:
                client.publish("x", b"1", qos=1)
            os.kill(broker.pid, number)
            assert broker.wait(60) == 0
        finally:
            broker.kill()


def test_messages_are_printed_as_a_table(broker):
    arguments = command("sub", "--port", str(broker.port), "-t", "csv/#", "-C", "2", "--csv")
    with ferromq.SyncClient(broker.url) as client:
        client.publish("csv/a", 'say "hi", twice', retain=True, qos=1)
        client.publish("csv/b", b"\xff\x00", retain=True, qos=1)
        done = subprocess.run(arguments, capture_output=True, text=True, timeout=60, check=True)  # noqa: S603
    rows = list(csv.DictReader(done.stdout.splitlines()))
    assert sorted((row["topic"], row["payload"], row["payload_hex"], row["retain"]) for row in rows) == [
        ("csv/a", 'say "hi", twice', "", "1"),
        ("csv/b", "", "ff00", "1"),
    ]


def test_a_configuration_is_checked(tmp_path):
    good, bad = tmp_path / "good.toml", tmp_path / "bad.toml"
    good.write_text("[log]\nlevel = 'warn'\n")
    bad.write_text("[log]\nlevel = 'loud'\n")
    done = subprocess.run(command("check", str(good)), capture_output=True, text=True, timeout=60, check=False)  # noqa: S603
    assert done.returncode == 0
    assert 'level = "warn"' in done.stdout
    done = subprocess.run(command("check", str(bad)), capture_output=True, text=True, timeout=60, check=False)  # noqa: S603
    assert done.returncode != 0
    assert "loud" in done.stderr
    assert "bad.toml" in done.stderr


def test_top_tells_for_whom_memory_is_held():
    with ferromq.Broker() as broker:
        session = ferromq.Session(86_400)
        with ferromq.SyncClient(broker, client_id="hoarder", session=session) as client:
            kept = client.subscribe("q/#", qos=1)
        with ferromq.SyncClient(broker) as client:
            client.publish_many([bytes(1000)] * 100, topic="q/1", qos=1)
        broker.clock.advance("1m")  # it tells of itself now and then
        arguments = command("top", "-p", str(broker.port), "-C", "1", "--interval", "0.1")
        done = subprocess.run(arguments, capture_output=True, text=True, timeout=60, check=False)  # noqa: S603
        assert done.returncode == 0, done.stderr
        (line,) = [line for line in done.stdout.splitlines() if line.startswith("held for")]
        owner, held = line.split()[2:4]
        assert owner == "hoarder"
        assert int(held) > 100_000
        del kept
