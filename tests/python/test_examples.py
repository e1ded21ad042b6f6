"""The examples are the first tests of the interface: each runs to its end and says what it should."""

import pathlib
import runpy
import signal
import subprocess
import sys

import pytest
from ferromq.testing import SyncCapture

EXAMPLES = pathlib.Path(__file__).parents[2] / "examples" / "python"


def run(*command):
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-W", "error", *command],
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("example", "says"),
    [
        ("publish_subscribe.py", "2 22"),
        ("request_response.py", "5"),
        ("without_asyncio.py", "b'21.5'"),
    ],
)
def test_a_small_example_runs_and_is_small(example, says, monkeypatch):
    monkeypatch.setenv("PYTHONUTF8", "1")
    assert says in run(EXAMPLES / example)
    assert len((EXAMPLES / example).read_text(encoding="utf-8").splitlines()) < 40


def test_the_examples_of_tests_pass_and_are_small():
    examples = sorted(EXAMPLES.glob("test_*.py"))
    assert "4 passed" in run("-m", "pytest", *examples, "-q")
    assert all(len(example.read_text(encoding="utf-8").splitlines()) < 50 for example in examples)


def test_the_web_application_reads_writes_and_streams(broker, monkeypatch):
    testclient = pytest.importorskip("fastapi.testclient", reason="pip install fastapi httpx")
    monkeypatch.setenv("MQTT_URL", broker.url)
    app = runpy.run_path(str(EXAMPLES / "fastapi_app.py"))["app"]
    with testclient.TestClient(app) as web, SyncCapture(broker, "plant/+/setpoint") as capture:
        assert web.get("/lines/7").status_code == 404
        broker.publish("plant/7/temp", "21.5", qos=1, retain=True)
        broker.wait_settled(timeout=10)  # handled, and only then acknowledged
        assert web.get("/lines/7").json() == {"celsius": 21.5}
        assert web.post("/lines/7/setpoint?celsius=20").json() == {"accepted": True}
        assert capture.wait_for("plant/7/setpoint").json() == 20
        with web.websocket_connect("/lines/7/live") as socket:
            assert socket.receive_text() == "21.5"
    # It has said DISCONNECT, which the broker reads before it is settled.
    broker.wait_settled(timeout=20)
    assert not any(client.connected for client in broker.clients)


@pytest.fixture
def demo_modules():
    for module in ("paho", "psutil", "rich"):
        pytest.importorskip(module, reason=f"the demo needs {module}: pip install --group demo")


@pytest.mark.usefixtures("demo_modules")
@pytest.mark.parametrize("arguments", [("--seconds", "0"), ("--seconds", "-1"), ("--devices", "0"), ("--hertz", "nan")])
def test_the_demo_refuses_numbers_that_make_no_sense(arguments):
    command = [sys.executable, EXAMPLES / "demo.py", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)  # noqa: S603
    assert done.returncode == 2
    assert f"argument {arguments[0]}" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.usefixtures("demo_modules")
def test_ctrl_c_ends_the_demo_with_the_summary():
    command = [sys.executable, "-u", EXAMPLES / "demo.py", "--seconds", "600", "--devices", "4"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as demo:  # noqa: S603
        lines = [demo.stdout.readline()]
        while "published" not in lines[-1]:
            assert lines[-1], demo.stderr.read()
            lines.append(demo.stdout.readline())
        demo.send_signal(signal.SIGINT)
        out, err = demo.communicate(timeout=60)
    assert "latency p50" in out
    assert "FAIL" not in out
    assert demo.returncode == 0, err


@pytest.mark.usefixtures("demo_modules")
def test_the_demo_ends_by_itself_with_a_summary():
    summary = run(EXAMPLES / "demo.py", "--seconds", "2", "--devices", "8")
    assert summary.count("\nok ") == 3
    assert "FAIL" not in summary
    assert "latency p50" in summary
