"""The examples are the first tests of the interface: each runs to its end and says what it should."""

import pathlib
import subprocess
import sys

import pytest

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


def test_the_example_of_a_test_passes():
    assert "1 passed" in run("-m", "pytest", EXAMPLES / "test_alarm.py", "-q")


def test_the_demo_ends_by_itself_with_a_summary():
    for module in ("paho", "psutil", "rich"):
        pytest.importorskip(module, reason=f"the demo needs {module}: pip install --group demo")
    summary = run(EXAMPLES / "demo.py", "--seconds", "2", "--devices", "8")
    assert summary.count("\nok ") == 3
    assert "FAIL" not in summary
    assert "latency p50" in summary
