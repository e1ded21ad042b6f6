"""Fixtures: a broker of its own for every test, and clients of it."""

import asyncio
import os
import signal
import subprocess
import sys
import textwrap

import ferromq
import pytest

# One thread does for a test, and there are many of them.
os.environ.setdefault("FERROMQ_THREADS", "1")

# A shell that starts a job in the background has it ignore Ctrl-C; the programs that tests start would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def broker():
    with ferromq.Broker() as broker:
        yield broker


@pytest.fixture
async def client(broker):
    async with ferromq.Client(broker.url, client_id="client") as client:
        yield client


@pytest.fixture
async def other(broker):
    async with ferromq.Client(broker, client_id="other") as client:
        yield client


@pytest.fixture
def sync_client(broker):
    with ferromq.SyncClient(broker.url, client_id="sync") as client:
        yield client


@pytest.fixture
def run_python():
    """Run a program to its end; its output, or a failure with what it wrote."""

    def run(program, *arguments, code=0, seconds=60):
        command = [sys.executable, "-X", "dev", "-W", "error", "-c", textwrap.dedent(program), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)  # noqa: S603
        assert done.returncode == code, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    return run


@pytest.fixture
def within():
    """Await something, but not for ever."""

    async def within(awaitable, seconds=20):
        async with asyncio.timeout(seconds):
            return await awaitable

    return within
