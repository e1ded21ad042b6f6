"""The pytest plugin, in runs of its own: every fixture, under every plugin for coroutines, and what it says."""

import os
import shutil
import socket
import subprocess
import sys
import textwrap
import threading

import ferromq
import pytest

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestDeprecationWarning")

BODY = """
    import pytest

    {mark}
    async def test_async(mqtt_broker, mqtt_client, mqtt_capture, capmqtt, mqtt_topic):
        assert type(mqtt_capture).__name__ == "Capture"
        assert capmqtt is mqtt_capture
        topic = mqtt_topic("plant/1")
        await mqtt_client.publish(topic, b"99")
        assert (await mqtt_capture.wait_for(topic)).payload == b"99"
        await mqtt_broker.settled()
        assert mqtt_capture.count(topic) == 1

    {mark}
    async def test_factory(mqtt_broker, mqtt_client_factory):
        one, two = mqtt_client_factory(client_id="one"), mqtt_client_factory(client_id="two", version=4)
        async with two.subscribe("x") as messages:
            await one.publish("x", b"1", qos=1)
            assert (await anext(messages)).payload == b"1"
        await one.disconnect()
        mqtt_client_factory.sync().publish("x")

    def test_sync(mqtt_broker, mqtt_sync_client, mqtt_capture, mqtt_topic):
        assert type(mqtt_capture).__name__ == "SyncCapture"
        mqtt_sync_client.publish(mqtt_topic("plant/1"), b"99", qos=1)
        assert mqtt_capture.wait_for(mqtt_topic("#")).payload == b"99"
        mqtt_broker.wait_settled()
        assert mqtt_capture.count(mqtt_topic("plant/+")) == 1
"""


@pytest.fixture
def suite(pytester):
    """Makes a file of tests, with settings."""

    def suite(*bodies, **ini):
        settings = {"asyncio_default_fixture_loop_scope": "function", "filterwarnings": "error", **ini}
        lines = "".join(f"{name} = {value}\n" for name, value in settings.items())
        pytester.makeini("[pytest]\naddopts = --strict-markers\n" + lines)
        pytester.makepyfile("\n".join(textwrap.dedent(body) for body in bodies))
        return pytester

    return suite


ASYNC_PLUGINS = {
    "pytest-asyncio, auto": ("", {"asyncio_mode": "auto"}),
    "pytest-asyncio, strict": ("@pytest.mark.asyncio", {"asyncio_mode": "strict"}),
    "anyio": ("@pytest.mark.anyio\n    @pytest.mark.parametrize('anyio_backend', ['asyncio'])", {}),
}


@pytest.mark.parametrize(("mark", "ini"), ASYNC_PLUGINS.values(), ids=ASYNC_PLUGINS)
def test_fixtures_work_under_every_plugin_for_coroutines(suite, mark, ini):
    suite(BODY.format(mark=mark), **ini).runpytest().assert_outcomes(passed=3)


def test_other_loops_are_refused_with_a_way_out(suite):
    tests = """
        @pytest.mark.parametrize("anyio_backend", ["trio", ("trio", {{}})])
        async def test_{fixture}(anyio_backend, {fixture}):
            pass
    """
    bodies = ["import pytest", *(tests.format(fixture=fixture) for fixture in ("mqtt_client", "mqtt_capture"))]
    done = suite(*bodies, asyncio_mode="auto").runpytest()
    done.assert_outcomes(errors=4)
    done.stdout.fnmatch_lines(["mqtt_client needs asyncio, and this test runs on trio: use mqtt_sync_client*"])


def test_xdist_runs_many_at_a_time(suite):
    shared = """
        @pytest.mark.parametrize("n", range(20))
        def test_shared(mqtt_broker_session, mqtt_sync_client, mqtt_capture, mqtt_topic, n):
            mqtt_sync_client.publish(mqtt_topic("x"), str(n), qos=1)
            assert mqtt_capture.wait_for().payload == str(n).encode()
    """
    done = suite(BODY.format(mark=""), shared, asyncio_mode="auto").runpytest_subprocess("-n", "2", timeout=60)
    done.assert_outcomes(passed=23)


def test_a_suite_that_does_not_use_it_does_not_load_it(suite):
    body = """
        import sys

        def test_nothing(pytestconfig):
            assert "ferromq.pytest_plugin" in sys.modules
            assert not [name for name in sys.modules if name.startswith("ferromq.") and name != "ferromq.pytest_plugin"]
            assert not pytestconfig.pluginmanager.has_plugin("ferromq-run")
    """
    suite(body).runpytest_subprocess(timeout=60).assert_outcomes(passed=1)


def test_every_test_has_a_fresh_broker_and_the_session_has_one(suite):
    body = """
        import pytest

        brokers, shared = set(), set()

        @pytest.mark.parametrize("n", range(3))
        def test_fresh(mqtt_broker, n):
            assert len(mqtt_broker.retained) == 0
            mqtt_broker.publish("x", "1", retain=True)
            mqtt_broker.wait_settled()
            brokers.add(id(mqtt_broker))

        @pytest.mark.parametrize("n", range(3))
        def test_shared(mqtt_broker_session, mqtt_topic, mqtt_capture, mqtt_sync_client, n):
            shared.add(mqtt_broker_session.url)
            assert len(shared) == 1
            assert mqtt_capture.messages == []
            mqtt_sync_client.publish(mqtt_topic("x"), str(n), qos=1, retain=True)
            assert mqtt_capture.wait_for(mqtt_topic("+")).payload == str(n).encode()
            assert mqtt_topic.prefix.startswith("test/")

        def test_both(mqtt_broker, mqtt_broker_session, mqtt_sync_client):
            assert mqtt_broker.url != mqtt_broker_session.url
            assert mqtt_broker.clients[0].client_id == "mqtt_sync_client"
    """
    suite(body).runpytest().assert_outcomes(passed=7)


def test_the_marker_configures_broker_clients_and_capture(suite):
    body = """
        import pytest

        @pytest.mark.mqtt(version=4, users={"dev": "secret"}, listeners=["ws", "tcp", "unix:///tmp/ferromq-{pid}"])
        def test_broker(mqtt_broker, mqtt_sync_client, mqtt_client_factory):
            assert [url.partition(":")[0] for url in mqtt_broker.urls] == ["ws", "mqtt", "unix"]
            (info,) = mqtt_broker.clients
            assert (info.username, info.version) == ("dev", "3.1.1")
            for url in mqtt_broker.urls:
                mqtt_client_factory.sync(url, version=5).publish("x", qos=1)

        @pytest.mark.mqtt(capture=["a/#", "b"], capabilities={"maximum_qos": 1})
        class TestClass:
            @pytest.mark.mqtt(capture="c")
            def test_nearest_wins(self, mqtt_capture, mqtt_sync_client):
                for topic in "abc":
                    mqtt_sync_client.publish(topic, qos=1)
                assert mqtt_capture.wait_for().topic == "c"

            def test_class(self, mqtt_broker, mqtt_capture, mqtt_sync_client):
                with pytest.raises(ValueError, match="QoS 1"):
                    mqtt_sync_client.publish("a", qos=2)
                for topic in ("a/1", "b", "c"):
                    mqtt_sync_client.publish(topic, qos=1)
                mqtt_broker.wait_settled()
                mqtt_capture.assert_topics("a/1", "b")
    """
    suite(body.replace("{pid}", str(os.getpid()))).runpytest().assert_outcomes(passed=3)


def test_a_capture_sees_what_comes_through_a_broker_that_lets_few_in(suite):
    body = """
        import pytest

        RULES = [{"permission": "allow", "users": ["dev"], "filters": ["plant/#"], "action": "publish"}]

        @pytest.mark.mqtt(users={"dev": "secret"}, acl=RULES, limits={"max_connections": 1}, listeners=["ws"])
        def test_it(mqtt_broker, mqtt_faults, mqtt_sync_client, mqtt_capture):
            mqtt_sync_client.publish("plant/1", "99", qos=1)
            assert mqtt_capture.wait_for("plant/#").text() == "99"
            assert [info.client_id for info in mqtt_broker.clients] == ["mqtt_sync_client"]
    """
    suite(body).runpytest().assert_outcomes(passed=1)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ("verison=5", "@pytest.mark.mqtt: mqtt has no argument 'verison'; did you mean 'version'?*"),
        ("listeners=['wsss']", "@pytest.mark.mqtt: no listener 'wsss'; did you mean 'wss'?*"),
        ("5", "@pytest.mark.mqtt takes keywords only*"),
        ("limits={'max_inflght': 1}", "*max_inflight*"),
    ],
)
def test_a_marker_that_cannot_be_is_refused(suite, arguments, complaint):
    done = suite(f"import pytest\n@pytest.mark.mqtt({arguments})\ndef test(mqtt_broker): pass").runpytest()
    done.assert_outcomes(errors=1)
    done.stdout.fnmatch_lines([complaint])


def test_the_shared_broker_is_not_for_one_test_to_configure(suite):
    body = """
        import pytest

        @pytest.mark.mqtt(users={"a": "b"})
        def test_users(mqtt_broker_session, mqtt_sync_client): pass

        def test_faults(mqtt_broker_session, mqtt_faults): pass
    """
    done = suite(body).runpytest()
    done.assert_outcomes(errors=2)
    done.stdout.fnmatch_lines(["mqtt_broker_session is shared*(users)", "faults would strike all tests*"])


def test_options_for_all_brokers_are_a_fixture(suite):
    body = """
        import pytest

        @pytest.fixture(scope="session")
        def mqtt_broker_options():
            return {"users": {"all": "x"}, "capabilities": {"maximum_qos": 1}}

        def test_all(mqtt_broker, mqtt_sync_client):
            assert mqtt_broker.clients[0].username == "all"

        @pytest.mark.mqtt(users={"one": "x"})
        def test_one(mqtt_broker, mqtt_sync_client):
            assert mqtt_broker.clients[0].username == "one"

        def test_shared(mqtt_broker_session, mqtt_sync_client):
            assert mqtt_sync_client.connected
    """
    suite(body).runpytest().assert_outcomes(passed=3)


def test_an_overridden_broker_is_the_one_of_all_fixtures(suite):
    body = """
        import ferromq, pytest

        @pytest.fixture
        def mqtt_broker():
            with ferromq.Broker(listeners=[]) as broker:
                yield broker

        def test_it(mqtt_broker, mqtt_sync_client, mqtt_capture):
            mqtt_sync_client.publish("x")
            mqtt_capture.wait_for("x")
            assert mqtt_broker.urls == []
    """
    suite(body).runpytest().assert_outcomes(passed=1)


def test_a_failure_shows_packets_and_messages(suite):
    body = """
        async def test_it(mqtt_broker, mqtt_client, mqtt_capture):
            await mqtt_client.publish("plant/7/temp", b"21.5", qos=1)
            await mqtt_client.publish("nobody", b"1", qos=1)
            await mqtt_capture.wait_for("plant/+/humidity", timeout=0.01)

        def test_passes(mqtt_broker):
            pass
    """
    for options in ((), ("-n", "1")):
        done = suite(body, asyncio_mode="auto").runpytest_subprocess(*options, timeout=60)
        done.assert_outcomes(failed=1, passed=1)
        done.stdout.fnmatch_lines(
            [
                "E*no message matches (waited 0.01 s): 'plant/+/humidity'",
                "E*plant/7/temp  x1, last '21.5'",
                "*- MQTT -*",
                "Broker(mqtt://*): 2 messages in*",
                "*mqtt_client*",
                "*> CONNECT*",
                "*> PUBLISH*plant/7/temp*",
                "*< PUBACK*",
                "capture: 2 messages",
                "*plant/7/temp  '21.5'  (QoS 1)",
            ]
        )


FAULTS = """
    import asyncio, ferromq, pytest

    async def test_a_lost_acknowledgement(mqtt_faults, mqtt_client, mqtt_capture, mqtt_topic):
        with mqtt_faults.drop("PUBACK", nth=1) as rule:
            publishing = mqtt_client.publish(mqtt_topic("x"), b"7", qos=1)
            await rule.struck()
            mqtt_faults.drop_connections()
            await publishing
        await mqtt_capture.wait_for_all(mqtt_topic("x"), count=2)
        assert mqtt_capture.count(mqtt_topic("x")) == 2

    def test_a_partition_does_not_hold_up_the_end(mqtt_faults, mqtt_sync_client, mqtt_capture):
        mqtt_faults.partition()
        mqtt_sync_client.publish_nowait("x", qos=1)
        assert mqtt_capture.messages == []

    async def test_back_off_takes_no_time(mqtt_faults, mqtt_client, mqtt_broker):
        async with asyncio.timeout(20):
            events = mqtt_client.events()
            with mqtt_faults.refuse():
                mqtt_faults.drop_connections()
                while not isinstance(await anext(events), ferromq.Disconnected):
                    pass
                mqtt_faults.clock.advance("10m")
            mqtt_faults.clock.advance("1m")
            while not isinstance(await anext(events), ferromq.Connected):
                pass
        assert mqtt_client.connected
"""

FOREIGN = """
    import pytest

    @pytest.mark.mqtt(capabilities={"maximum_qos": 1})
    def test_configured(mqtt_broker): pass

    def test_inside(mqtt_broker):
        mqtt_broker.clients

    @pytest.mark.mqtt(version=4)
    def test_old(mqtt_broker, mqtt_sync_client, mqtt_capture):
        mqtt_sync_client.publish("old/1", b"1", qos=1, retain=True)
        assert mqtt_capture.wait_for("old/+").payload == b"1"

    def test_retained_is_seen_and_cleared_1(mqtt_broker, mqtt_sync_client):
        mqtt_sync_client.publish("kept/1", b"1", qos=1, retain=True)
        assert mqtt_broker.retained["kept/#"] == {"kept/1": b"1"}
        assert mqtt_broker.retained.get("kept/1") == b"1"
        assert "kept/2" not in mqtt_broker.retained

    def test_retained_is_seen_and_cleared_2(mqtt_broker):
        assert "kept/1" not in mqtt_broker.retained

    async def test_what_the_kit_publishes_itself_is_not_captured(mqtt_broker, mqtt_client, mqtt_capture):
        await mqtt_client.publish("seen/1", b"1", qos=1)
        await mqtt_broker.settled(timeout=10)
        assert "seen/1" not in mqtt_broker.retained
        assert not [message.topic for message in mqtt_capture.messages if message.topic.startswith("ferromq/")]

    async def test_session(mqtt_broker_session, mqtt_client, mqtt_capture, mqtt_topic):
        await mqtt_client.publish(mqtt_topic("a"), b"1", qos=1)
        await mqtt_capture.wait_for(mqtt_topic("a"))
        await mqtt_broker_session.settled(timeout=10)
        assert mqtt_capture.count() == 1
"""


def test_faults_strike_clients_and_not_the_capture(suite):
    suite(FAULTS, asyncio_mode="auto").runpytest().assert_outcomes(passed=3)


def test_weaker_brokers_have_names(suite):
    body = """
        import ferromq, pytest

        @pytest.mark.mqtt(like="aws-iot-core")
        def test_it(mqtt_sync_client, mqtt_capture):
            with pytest.raises(ferromq.InvalidArgument, match="QoS 1"):
                mqtt_sync_client.publish("x", qos=2)
            mqtt_sync_client.publish("x", qos=1)
            mqtt_capture.wait_for("x")
    """
    suite(body).runpytest().assert_outcomes(passed=1)


def brokers():
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    yield "ferromq", [sys.executable, "-m", "ferromq", "broker", "--listen", "tcp://127.0.0.1:0"], None
    if mosquitto := shutil.which("mosquitto"):
        yield "mosquitto", [mosquitto, "-p", str(port)], f"mqtt://127.0.0.1:{port}"


@pytest.fixture(params=list(brokers()), ids=lambda param: param[0])
def foreign_url(request):
    _, command, url = request.param
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as broker:  # noqa: S603
        for line in broker.stdout:
            if line.startswith("listening "):
                url = line.split()[1].replace("tcp://", "mqtt://")
            if line.startswith("ready") or line.rstrip().endswith("running"):
                break
        assert url
        yield url
        broker.terminate()
        broker.stdout.read()


def test_the_same_tests_run_against_a_foreign_broker(suite, foreign_url):
    done = suite(BODY.format(mark=""), FOREIGN, asyncio_mode="auto").runpytest_subprocess(
        "--mqtt-broker", foreign_url, "-rs"
    )
    done.assert_outcomes(passed=8, skipped=2)
    done.stdout.fnmatch_lines(
        ["*the marker configures the broker (capabilities)*", "*Broker.clients looks inside a broker*"]
    )


@pytest.mark.parametrize(
    ("topic", "holds_up"),
    [
        ("ferromq/settled/of-another-worker", False),
        ("test/0123abgw1/test_it_1-89abcdef/plant/1", False),
        ("plant/1", True),
        ("test/plant/1", True),
    ],
)
def test_tests_of_other_processes_do_not_keep_a_foreign_broker_from_being_settled(suite, broker, topic, holds_up):
    body = f"""
        import ferromq, pytest

        def test_it(mqtt_broker, mqtt_sync_client):
            mqtt_sync_client.publish("mine", qos=1)
            if {holds_up}:
                with pytest.raises(ferromq.Timeout):
                    mqtt_broker.wait_settled(timeout=1)
            else:
                mqtt_broker.wait_settled(timeout=20)
    """
    is_over = threading.Event()

    def others():
        with ferromq.SyncClient(broker) as client:
            while not is_over.wait(0.01):
                client.publish(topic, qos=1)

    thread = threading.Thread(target=others)
    thread.start()
    try:
        suite(body).runpytest_subprocess("--mqtt-broker", broker.url, timeout=60).assert_outcomes(passed=1)
    finally:
        is_over.set()
        thread.join()


def test_options_of_all_tests_keep_none_from_a_foreign_broker(suite, broker):
    body = """
        import pytest

        @pytest.fixture(scope="session")
        def mqtt_broker_options():
            return {"capabilities": {"maximum_packet_size": "128 KiB"}}

        def test_it(mqtt_broker, mqtt_sync_client, mqtt_capture):
            mqtt_sync_client.publish("x", qos=1)
            mqtt_capture.wait_for("x")
    """
    suite(body).runpytest_subprocess("--mqtt-broker", broker.url).assert_outcomes(passed=1)


def test_faults_strike_in_front_of_a_foreign_broker(suite, foreign_url):
    done = suite(FAULTS, asyncio_mode="auto").runpytest_subprocess("--mqtt-broker", foreign_url, timeout=60)
    done.assert_outcomes(passed=3)


def test_the_foreign_broker_may_be_a_setting(suite, broker):
    done = suite(BODY.format(mark=""), asyncio_mode="auto", mqtt_broker=broker.url, mqtt_version="4").runpytest()
    done.assert_outcomes(passed=3)
    assert broker.stats()["connections_opened"] >= 6
