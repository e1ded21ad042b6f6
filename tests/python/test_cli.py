"""The console script is the command line written in Rust."""

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
