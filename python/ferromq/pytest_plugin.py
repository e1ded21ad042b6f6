"""The pytest plugin: a broker for each test in the time of a function call, clients of it, and what came through it.

    async def test_alarm(mqtt_broker, mqtt_client, mqtt_capture):
        await my_app(mqtt_broker.url)
        await mqtt_client.publish("plant/1/temp", b"99")
        assert (await mqtt_capture.wait_for("alarm/#")).payload == b"high"

pytest loads this module in every run, also where nobody has heard of MQTT: it imports nothing that pytest has not
imported itself, and its hooks at run time are registered when the first fixture is used. All fixtures are synchronous,
so they serve coroutines under pytest-asyncio and anyio as well as plain functions, and belong to no event loop.
"""

from __future__ import annotations

import inspect
import os
from typing import TYPE_CHECKING, NoReturn

import pytest

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from typing import Any

    import ferromq
    from ferromq.testing import Capture, ForeignBroker, SyncCapture
    from ferromq.testing._kit import Clients, Kit, Topics

    AnyBroker = ferromq.Broker | ForeignBroker

_MARKER = (
    "mqtt(version=5, capture='#', users={name: password}, listeners=['tcp', 'ws', URL], like=NAME, **broker): "
    "what the MQTT fixtures of this test are like; all arguments of ferromq.Broker are known"
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options and settings."""
    group = parser.getgroup("mqtt", "MQTT (ferromq)")
    group.addoption(
        "--mqtt-broker",
        metavar="URL",
        help="run the tests against this broker, not against their own; what needs to look inside is skipped",
    )
    group.addoption("--mqtt-version", metavar="VERSION", help="version of MQTT where a test names none: 5, 4 or 3")
    parser.addini("mqtt_broker", "as --mqtt-broker", default="")
    parser.addini("mqtt_version", "as --mqtt-version", default="5")


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line("markers", _MARKER)


@pytest.fixture(scope="session")
def mqtt_broker_options() -> dict[str, Any]:
    """Override it to configure the brokers of all tests: arguments of `ferromq.Broker`; markers win over it.

    A broker of `--mqtt-broker` is not configured by it; clients use its user name and password there, too.
    """
    return {}


@pytest.fixture
def mqtt_broker(request: pytest.FixtureRequest) -> Iterator[AnyBroker]:
    """A fresh broker in this process (`ferromq.Broker`), as the marker says; or the one of `--mqtt-broker`."""
    kit, run = _kit(request), _run(request.config)
    needs_faults = "mqtt_faults" in request.fixturenames
    if run.url:
        # What all tests have in common, `mqtt_broker_options`, that broker has or has not: it is as it is.
        if kit.marked:
            _skip(f"the marker configures the broker ({', '.join(kit.marked)}), and {run.url} is a foreign one")
        with run.watch(with_faults=needs_faults) as foreign:
            kit.broker = foreign
            yield foreign
        return
    from ferromq.testing._kit import TRACE_PACKETS  # noqa: PLC0415 - as all imports below: only when it is used

    with kit.settings.new_broker(trace=TRACE_PACKETS, faults=needs_faults) as broker:
        kit.broker = broker
        yield broker


@pytest.fixture(scope="session")
def mqtt_broker_session(request: pytest.FixtureRequest, mqtt_broker_options: dict[str, Any]) -> Iterator[AnyBroker]:
    """A broker that all tests of this process share. `mqtt_topic` gives each its own topics."""
    run = _run(request.config)
    if run.url:
        with run.watch() as run.shared:
            yield run.shared
        return
    from ferromq.testing._kit import TRACE_PACKETS, Settings  # noqa: PLC0415

    with Settings(**mqtt_broker_options).new_broker(trace=TRACE_PACKETS) as run.shared:
        yield run.shared


@pytest.fixture
def mqtt_topic(request: pytest.FixtureRequest) -> Topics:
    """Makes topics of this test: `mqtt_topic("plant/1")` is `"test/.../plant/1"`, and `.prefix` what stands before."""
    from ferromq.testing._kit import Topics  # noqa: PLC0415

    return Topics(request.node.nodeid, _run(request.config).token)


@pytest.fixture
def mqtt_client_factory(request: pytest.FixtureRequest) -> Iterator[Clients]:
    """Makes connected clients of the test's broker: `mqtt_client_factory(client_id="dev1")`, and `.sync(...)`."""
    from ferromq.testing._kit import Clients  # noqa: PLC0415

    kit, run = _kit(request), _run(request.config)
    broker = _broker(request)
    # On a broker that others use as well, a client identifier may be taken.
    suffix = f"-{run.token}" if run.url or broker is run.shared else ""
    clients = Clients(broker, kit.settings, suffix)
    yield clients
    if kit.faults is not None:
        kit.faults.clear()  # behind a partition there is nobody to take leave of
    clients.close()


@pytest.fixture
def mqtt_client(request: pytest.FixtureRequest, mqtt_client_factory: Clients) -> ferromq.Client:
    """A client of the test's broker for coroutines, connected."""
    _refuse_other_loops(request, "mqtt_client", "mqtt_sync_client")
    return mqtt_client_factory(client_id="mqtt_client")


@pytest.fixture
def mqtt_sync_client(mqtt_client_factory: Clients) -> ferromq.SyncClient:
    """A client of the test's broker that blocks, connected."""
    return mqtt_client_factory.sync(client_id="mqtt_sync_client")


@pytest.fixture
def mqtt_capture(request: pytest.FixtureRequest) -> Iterator[Capture | SyncCapture]:
    """What comes through the test's broker: a `Capture` for coroutines, and a `SyncCapture` for other tests."""
    from ferromq.testing import Capture, SyncCapture  # noqa: PLC0415

    kit, broker = _kit(request), _broker(request)
    filters = kit.settings.capture
    if not filters and broker is _run(request.config).shared:
        filters = (request.getfixturevalue("mqtt_topic")("#"),)
    test = getattr(request.node, "obj", None)
    is_async = test is not None and inspect.iscoroutinefunction(inspect.unwrap(test))
    if is_async:
        _refuse_other_loops(request, "mqtt_capture", "ferromq.testing.SyncCapture")
    kit.capture = (Capture if is_async else SyncCapture)(broker, *filters)
    kit.capture.start()
    yield kit.capture
    kit.capture.stop()


@pytest.fixture
def capmqtt(mqtt_capture: Capture | SyncCapture) -> Capture | SyncCapture:
    """The same as `mqtt_capture`, named as pytest names `caplog` and `capsys`."""
    return mqtt_capture


@pytest.fixture
def mqtt_faults(request: pytest.FixtureRequest) -> ferromq.Faults:
    """Faults between the test's broker and its clients, and the clock of both."""
    kit, broker = _kit(request), _broker(request)
    if broker is _run(request.config).shared:
        pytest.fail("faults would strike all tests that share mqtt_broker_session: use mqtt_broker", pytrace=False)
    kit.faults = broker.faults
    return kit.faults


class _Run:
    """What all tests of this process have in common."""

    def __init__(self, config: pytest.Config) -> None:
        worker = os.environ.get("PYTEST_XDIST_WORKER", "")
        self.url: str = config.getoption("--mqtt-broker") or config.getini("mqtt_broker")
        self.version: str = config.getoption("--mqtt-version") or config.getini("mqtt_version")
        self.token = os.urandom(3).hex() + worker
        self.shared: AnyBroker | None = None

    def watch(self, with_faults: bool = False) -> ForeignBroker:
        """The foreign broker, to be entered."""
        from ferromq.testing import ForeignBroker  # noqa: PLC0415

        return ForeignBroker(
            self.url, version=self.version, ignore=self._is_of_others, faults=with_faults, unsupported=_skip
        )

    def _is_of_others(self, topic: str) -> bool:
        """Whether a topic was made by `mqtt_topic` in another process that tests with the same broker."""
        from ferromq.testing._kit import run_of  # noqa: PLC0415

        return run_of(topic) not in {None, self.token}

    # --- hooks, registered when the first fixture is used -------------------------------------------------------------

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Tell of packets, drops and messages when a test that uses MQTT fails."""
        report = yield
        kit = item.stash.get(_KIT, None)
        if report.failed and kit is not None and (text := kit.report()):
            report.sections.append(("MQTT", text))
        return report


_RUN = pytest.StashKey[_Run]()
_KIT = pytest.StashKey["Kit"]()


def _run(config: pytest.Config) -> _Run:
    run = config.stash.get(_RUN, None)
    if run is None:
        run = config.stash[_RUN] = _Run(config)
        config.pluginmanager.register(run, "ferromq-run")
    return run


def _kit(request: pytest.FixtureRequest) -> Kit:
    """What the test uses; made by its first fixture."""
    stash: pytest.Stash = request.node.stash
    kit = stash.get(_KIT, None)
    if kit is None:
        kit = stash[_KIT] = _new_kit(request)
    return kit


def _new_kit(request: pytest.FixtureRequest) -> Kit:
    from ferromq.testing._kit import Kit  # noqa: PLC0415

    marked: dict[str, Any] = {}
    # The farthest first: a function's marker wins over that of its class.
    for marker in reversed(list(request.node.iter_markers("mqtt"))):
        if marker.args:
            pytest.fail(f"@pytest.mark.mqtt takes keywords only, not {marker.args!r}", pytrace=False)
        marked |= marker.kwargs
    options = request.getfixturevalue("mqtt_broker_options")
    try:
        return Kit({"version": _run(request.config).version, **options}, marked)
    except (TypeError, ValueError) as error:
        complaint = f"@pytest.mark.mqtt: {error}"
    pytest.fail(complaint, pytrace=False)


def _broker(request: pytest.FixtureRequest) -> AnyBroker:
    """The broker that clients use: the test's own, unless it names the shared one alone."""
    kit, run = _kit(request), _run(request.config)
    broker = kit.broker
    if broker is None:
        names = request.fixturenames
        is_shared = "mqtt_broker_session" in names and "mqtt_broker" not in names
        broker = kit.broker = request.getfixturevalue("mqtt_broker_session" if is_shared else "mqtt_broker")
    if broker is run.shared and kit.marked:
        told = ", ".join(kit.marked)
        pytest.fail(f"mqtt_broker_session is shared, so a marker cannot configure it ({told})", pytrace=False)
    return broker


def _refuse_other_loops(request: pytest.FixtureRequest, fixture: str, instead: str) -> None:
    if "anyio_backend_name" not in request.fixturenames and "anyio_backend" not in request.fixturenames:
        return
    backend = request.getfixturevalue("anyio_backend")
    name = backend if isinstance(backend, str) else backend[0]
    if name != "asyncio":
        message = f"{fixture} needs asyncio, and this test runs on {name}: use {instead} in a thread, or run it with "
        pytest.fail(message + "anyio_backend='asyncio'", pytrace=False)


def _skip(reason: str) -> NoReturn:
    pytest.skip(reason)
