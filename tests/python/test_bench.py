"""The benchmark of the Python crossing runs, counts every message and fills each row. Figures are not judged here."""

import json
import pathlib
import subprocess
import sys

import pytest

BENCH = pathlib.Path(__file__).parents[2] / "benches" / "python"
ROWS = "import table; print(','.join(row.key for row in table.ROWS if row.key != 'pytest'))"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads memory from /proc")
def test_every_row_is_measured_and_no_message_is_missing(tmp_path):
    pytest.importorskip("pandas")
    command = [sys.executable, str(BENCH), "--runs", "1", "--scale", "0.002", "--peers", "ferromq"]
    # pytest in pytest takes longest, and is used by all other tests.
    rows = subprocess.run([sys.executable, "-c", ROWS], cwd=BENCH, capture_output=True, text=True, check=True)  # noqa: S603
    command += ["--rows", rows.stdout.strip(), "--output", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=170, check=False)  # noqa: S603
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "python.json").read_text())
    table = (tmp_path / "python.md").read_text()
    assert "loses" not in table
    assert "fails" not in table
    for row, of_row in found["runs"].items():
        if not of_row["ferromq"]:
            assert row.endswith("mosquitto"), row
            continue
        (run,) = of_row["ferromq"]
        assert run["count"] == found["messages"].get(row, found["messages"]["frame_cpu"])["ferromq"], row
        assert run.get("is_complete", True), row
        assert run.get("received_by_broker", run["count"]) == run["count"], row
        assert found["medians"][row]["ferromq"] is not None
