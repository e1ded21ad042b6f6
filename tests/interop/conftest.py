"""Fixtures of the interop matrix: a test that asks for `cell` runs once for each broker and client that can do it.

`INTEROP_BROKER=ferromq|mosquitto|both` chooses the brokers, `-k paho` the clients. With INTEROP_REQUIRE set, as in
continuous integration, a missing tool is a failure instead of a skip.
"""

from __future__ import annotations

import itertools
import os

import pytest
from harness import brokers, cells, known
from harness.peer import Pool


def pytest_configure(config):
    config.addinivalue_line("markers", "needs(*features): what the client must let its user do or see")
    config.addinivalue_line("markers", "version(number): 4 or 5, for what only one of them has")


def pytest_generate_tests(metafunc):
    if "cell" not in metafunc.fixturenames:
        return
    needed = [feature for mark in metafunc.definition.iter_markers("needs") for feature in mark.args]
    versions = {version for mark in metafunc.definition.iter_markers("version") for version in mark.args} or {4, 5}
    chosen = [(broker, cell) for broker, cell in cells.matrix() if cell.version in versions and cell.can(*needed)]
    parameters = [
        pytest.param(broker, cell, id=f"{broker}-{cell}", marks=known.marks(broker, cell, metafunc.function.__name__))
        for broker, cell in chosen
    ]
    metafunc.parametrize(("broker_name", "cell"), parameters, scope="session")


@pytest.fixture(scope="session")
def running():
    """Brokers by name, started when first asked for, stopped at the end."""
    started = {}
    yield started
    for broker in started.values():
        broker.stop()


@pytest.fixture
def broker(running, broker_name, cell, tmp_path_factory):
    require(cells.missing(broker_name, cell))
    if broker_name not in running:
        running[broker_name] = brokers.Broker.start(broker_name, tmp_path_factory.mktemp(broker_name))
    return running[broker_name]


@pytest.fixture(scope="session")
def pool():
    processes = Pool()
    yield processes
    processes.close()


@pytest.fixture
def peer(pool, cell, broker):
    """Makes clients of this cell; `peer.connected()` connects one under a fresh client identifier."""
    yield Maker(pool, cell, broker)
    pool.give_back()


@pytest.fixture
def topic():
    """A topic of this test's own."""
    return f"interop/{next(_numbers)}"


class Maker:
    """Makes clients of one cell against one broker."""

    def __init__(self, pool, cell, broker):
        self._pool = pool
        self.cell = cell
        self.broker = broker

    def __call__(self, cell=None):
        return self._pool.take(cell or self.cell)

    def connected(self, client_id=None, cell=None, **options):
        peer = self(cell)
        peer.connect(self.broker, client_id or self.fresh_id(), **options)
        return peer

    @staticmethod
    def fresh_id():
        return f"interop-{os.getpid()}-{next(_numbers)}"


def require(reason):
    """Skip, or fail where nothing may be missing."""
    if reason and os.environ.get("INTEROP_REQUIRE"):
        pytest.fail(reason, pytrace=False)
    if reason:
        pytest.skip(reason)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if report.failed and call.when == "call" and "broker" in getattr(item, "funcargs", {}):
        report.sections.append(("what the broker logged", item.funcargs["broker"].tail()))
    return report


_numbers = itertools.count(1)
