"""The comparison of brokers adds up: medians, ratios, verdicts, what is read from the system, and the pictures."""

import importlib
import os
import pathlib
import re
import socket
import subprocess
import sys
import xml.etree.ElementTree as ET

import pytest

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")

ROOT = pathlib.Path(__file__).parents[2]
BENCH = ROOT / "benches" / "e2e"
MODULES = [path.stem for path in BENCH.glob("[a-z]*.py")]


@pytest.fixture
def bench(monkeypatch):
    """Imports a module of the benchmark, whose names are as plain as those of other benchmarks."""
    monkeypatch.syspath_prepend(str(BENCH))
    for name in MODULES:
        monkeypatch.delitem(sys.modules, name, raising=False)
    yield importlib.import_module
    for name in MODULES:
        sys.modules.pop(name, None)


def run(cpu, received=1_000_000, **more):
    return {"broker_cpu_s": cpu, "received": received, "elapsed_s": 2.0, **more}


def test_the_ratio_is_that_of_runs_that_took_turns_and_not_of_medians(bench):
    figures, workloads = bench("figures"), bench("workloads")
    line = workloads.Line("", "", "cpu_per_million", 0.5)
    # The second round ran on a machine that was three times as slow.
    result = figures.result(line, [run(1.0), run(3.0), run(1.1)], [run(4.0), run(12.0), run(4.4)])
    assert result.value == pytest.approx(1.1)
    assert result.ratio == pytest.approx(0.25)
    assert result.spread == pytest.approx((0.25, 0.25))


def test_a_run_that_failed_leaves_its_partner_out(bench):
    figures, workloads = bench("figures"), bench("workloads")
    line = workloads.Line("", "", "cpu_per_million", 0.5)
    failed = {"error": "refused"}
    result = figures.result(line, [failed, run(2.0), run(9.0)], [run(1.0), run(4.0), failed])
    assert (result.value, result.ratio) == (5.5, 0.5)
    nothing = figures.result(line, [failed], [run(1.0)])
    assert (nothing.value, nothing.ratio, nothing.spread) == (None, None, None)
    assert figures.value(line, run(1.0, received=0)) is None


def test_each_line_names_a_metric_and_every_metric_reads_a_report(bench):
    figures, workloads = bench("figures"), bench("workloads")
    lines = [line for workload in workloads.WORKLOADS for line in workload.lines]
    assert {line.metric for line in lines} <= set(figures.METRICS)
    crowd = {"connections": 1000, "connect_broker_cpu_s": 0.02, "connect_s": 0.05, "bytes_per_connection": 700.0}
    report = run(0.5, 500_000, latency_us={"p50": 80.0, "p99": 200.0}) | crowd
    found = {name: metric(report) for name, metric in figures.METRICS.items()}
    assert found == pytest.approx(
        {
            "cpu_per_million": 1.0,
            "p50": 80.0,
            "p99": 200.0,
            "cpu_ms": 500.0,
            "elapsed_ms": 2000.0,
            "cpu_per_connect": 20.0,
            "time_per_connect": 50.0,
            "bytes_per_connection": 700.0,
        }
    )


def test_rows_have_names_of_their_own_and_a_reach(bench):
    workloads = bench("workloads")
    keys = [workload.key for workload in workloads.WORKLOADS]
    assert len(keys) == len(set(keys))
    assert all(workload.lines[0].reach for workload in workloads.WORKLOADS)


def test_the_load_is_the_limit_when_it_has_no_time_left_and_the_broker_has(bench):
    figures = bench("figures")
    busy = {"load_cpu_s": 1.95, "load_threads": 1}
    assert figures.is_load_limited(run(0.5, **busy))
    assert not figures.is_load_limited(run(1.99, **busy))
    assert not figures.is_load_limited(run(0.5, load_cpu_s=1.0, load_threads=1))
    assert not figures.is_load_limited(run(0.5, **busy, plan={"rate": 5000}))
    assert not figures.is_load_limited({"error": "refused"})
    # A crowd has steps; the first of them is meant.
    crowd = {"load_threads": 2, "connect_s": 1.0, "connect_load_cpu_s": 1.9, "connect_broker_cpu_s": 0.5, "idle_s": 9.0}
    assert (figures.load_share(crowd), figures.broker_share(crowd)) == (0.95, 0.5)
    assert figures.is_load_limited(crowd)


def test_who_falls_behind_a_rate_and_who_loses_is_told(bench):
    figures = bench("figures")
    assert figures.faults(run(1.0, messages_per_s=4990.0, plan={"rate": 5000.0})) == []
    behind = run(1.0, messages_per_s=3000.0, plan={"rate": 5000.0}, lost=1200, stalls=2)
    assert figures.faults(behind) == ["1,200 lost", "2 stalls", "could not keep the rate of 5,000/s"]
    assert figures.faults({"error": "first\nlast"}) == ["fails: last"]


def test_a_table_has_the_verdict_the_losses_and_the_limit_of_the_load(bench):
    report = bench("report")
    latency = dict.fromkeys(("p50", "p90", "p99", "p99.9", "max"), 12.0)
    ours = run(0.05, latency_us=latency, lost=3, load_cpu_s=1.95, load_threads=1, messages_per_s=5e5)
    theirs = run(1.0, latency_us=latency, messages_per_s=5e5)
    runs = {"pairs50_q0": {"mosquitto": [theirs], "ferromq": [ours]}}
    text = report.markdown(runs, ["mosquitto", "ferromq"], {"machine": "this one"})
    assert "- machine: this one" in text
    row = next(line for line in text.splitlines() if line.startswith("| 50 to 50") and "CPU s" in line)
    assert [cell.strip() for cell in row.split("|")[3:8]] == ["1", "0.05", "**0.050**", "0.065", "yes"]
    assert "3 lost; the load was the limit in 1 of 1" in text
    runs["pairs50_q0"]["ferromq"] = [run(0.13, latency_us=latency)]
    assert "no, 2.00 times" in report.markdown(runs, ["mosquitto", "ferromq"], {})


def test_grpc_is_the_base_of_its_own_rows_only(bench):
    report = bench("report")
    runs = {
        "pairs50_q0": {"mosquitto": [run(2.0)], "ferromq": [run(1.0)]},
        "grpc_q0": {"mosquitto": [run(2.0)], "grpc": [run(10.0)], "ferromq": [run(1.0)]},
    }
    text = report.markdown(runs, ["mosquitto", "grpc", "ferromq"], {})
    heads = [line for line in text.splitlines() if line.startswith("| workload | unit")]
    assert [head.split(" | ")[2:4] for head in heads] == [["mosquitto", "ferromq"], ["grpc", "ferromq"]]
    assert "**0.500**" in text
    assert "**0.100**" in text


def test_a_relay_plays_what_has_exact_topics_and_no_qos_2(bench):
    workloads, brokers, cells = bench("workloads"), bench("brokers"), bench("cells")
    relay, ours = brokers.relay(ROOT), brokers.ferromq(ROOT)
    played = {row.key for row in workloads.WORKLOADS if cells.plays(relay, row)}
    assert {"pairs50_q0", "pairs50_q1", "fanout1000_q1", "pairs2500_10k", "rate50k", "single", "grpc_q1"} <= played
    assert not played & {"pairs50_q2", "fanin_q0", "matching", "shared", "retained", "connections"}
    assert all(cells.plays(ours, row) for row in workloads.WORKLOADS)


def test_a_reach_below_what_a_relay_costs_is_told(bench):
    report = bench("report")
    latency = {"p50": 60.0, "p99": 90.0}
    runs = {
        key: {
            name: [run(cpu, latency_us=latency)]
            for name, cpu in (("mosquitto", 10.0), ("relay", least), ("ferromq", 7.5))
        }
        for key, least in (("rate50k", 6.0), ("pairs50_q0", 0.6))
    }
    runs["fanin_q0"] = {"mosquitto": [run(9.0)], "ferromq": [run(1.0)]}
    text = report.markdown(runs, ["mosquitto", "relay", "ferromq"], {})
    lines = text.partition("in a relay's reach")[2].partition("deliveries/s")[0].splitlines()
    found = {
        line.split("|")[1].strip(): [cell.strip() for cell in line.split("|")[3:11]]
        for line in lines
        if "CPU s" in line
    }
    assert found == {
        "50 pairs, 50,000 msg/s, QoS 0": ["10.0", "6", "0.600", "7.5", "0.750", "1.25", "0.5", "no"],
        "50 to 50 pairs, 16 B, QoS 0": ["10.0", "0.6", "0.060", "7.5", "0.750", "12.50", "0.065", "yes"],
    }
    assert "in a relay's reach" not in report.markdown(runs, ["mosquitto", "ferromq"], {})


def test_pictures_are_well_formed_and_mark_every_figure(bench):
    plot = bench("plot")
    bars = plot.bars("a < b", ["ferromq", "x"], [plot.Bar("row & row", {"ferromq": 0.05, "x": None}, 0.1)])
    assert len(ET.fromstring(bars).findall(".//{*}rect")) == 1 + 2 + 1  # noqa: S314 - paper, legend, bar
    panel = plot.Panel("t", "x", {"ferromq": [(1, 2.0), (10, 3.0)], "y": [(1, 1.0)]})
    drawn = ET.fromstring(plot.curves("c", [panel, plot.Panel("empty", "x", {})]))  # noqa: S314
    assert len(drawn.findall(".//{*}circle")) == 3
    scale = plot.Scale.of([1, 100])
    assert scale.share(10) == pytest.approx(0.5)
    assert 10 in scale.marks()


def test_balance_tells_what_shards_cost_and_which_thread_has_the_work(bench):
    balance = bench("balance")

    def shards(cpu, *threads):
        more = {"latency_us": {"p99": 900.0}, "messages_per_s": 5e5, "broker_threads_cpu_s": threads}
        return run(cpu, **more)

    # Other work came in the second round, to all alike.
    runs = {1: [shards(1.0, 1.0, 0.0), shards(3.0, 3.0, 0.0)], 2: [shards(1.2, 0.9, 0.3), shards(3.6, 2.7, 0.9)]}
    title = balance.LOADS[0].title
    lines = balance.markdown({title: runs | {4: [{"error": "refused"}, {"error": "refused"}]}})
    found = [[cell.strip() for cell in line.split("|")[2:9]] for line in lines[2:]]
    assert found[0] == ["1", "2", "1.00", "500,000", "900", "1.00", "1.00"]
    assert found[1][:3] == ["2", "2.4", "1.20"]
    assert found[1][-1] == "0.75"
    assert found[2][:2] == ["4", "fails: refused"]


def test_a_cliff_is_the_steepest_step_of_a_curve(bench):
    reports = bench("curves_report")
    assert reports.steepest([(1, 1.0), (2, 2.0), (4, 9.0), (8, 3.0)]) == 4.5
    assert reports.steepest([(1, 1.0)]) is None


def test_laggards_are_judged_by_what_the_others_lose_and_what_they_take(bench):
    reports, storms = bench("curves_report"), bench("storms")
    calm = run(1.0, messages_per_s=1000.0, latency_us={"p99": 5.0}, broker_resident_peak_bytes=10 << 20)
    more = {"latency_us": {"p99": 6.0}, "laggards_lost": 0, "lost": 0}

    def judged(rate, added):
        peak = (10 << 20) + int(storms.BOUND_BYTES * added)
        pair = storms.Pair(calm, run(1.0, messages_per_s=rate, broker_resident_peak_bytes=peak, **more))
        return reports.overloaded(pair, is_ours=True)[-1]

    assert judged(950.0, 0.5) == "holds"
    assert judged(850.0, 0.5) == "does not hold"
    assert judged(950.0, 1.5) == "does not hold"
    failed = storms.Pair(calm, {"error": "x"})
    assert reports.overloaded(failed, is_ours=True)[-1] == "fails"
    pairs = [storms.Pair(calm, run(1.0, messages_per_s=rate)) for rate in (900.0, 500.0, 700.0)]
    assert storms.median([failed, *pairs]) is pairs[2]
    assert storms.median([failed]) is failed


def test_who_listens_is_found_by_its_port(bench):
    brokers = bench("brokers")
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert brokers.listener(server.getsockname()[1]) == os.getpid()
    table = (
        "  sl  local_address rem_address   st ...\n"
        "   0: 0100007F:075B 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1067 1 0\n"
        "   1: 0100007F:075B 0100007F:9C40 01 00000000:00000000 00:00000000 00000000     0        0 1068 1 0\n"
    )
    assert brokers.listening(table, 1883) == {"1067"}


def test_a_broker_is_named_by_a_command_with_a_port(bench, tmp_path):
    brokers = bench("brokers")
    config = tmp_path / "flash.conf"
    config.write_text("listen { port {port} }")
    line = brokers.filled(brokers.named(f"flashmq=flashmq -c {{config:{config}}}").line, 1884, tmp_path)
    assert line == f"flashmq -c {tmp_path}/copy-flash.conf"
    assert (tmp_path / "copy-flash.conf").read_text() == "listen { port 1884 }"
    with pytest.raises(ValueError, match="is not there"):
        brokers.named("flashmq=flashmq -c {config:/nowhere.conf}")
    command = brokers.named("flashmq=flashmq --port {port}")
    assert (command.name, command.line) == ("flashmq", "flashmq --port {port}")
    for wrong in ("flashmq", "=x {port}", "flashmq=flashmq"):
        with pytest.raises(ValueError, match="is not like"):
            brokers.named(wrong)
    with (
        pytest.raises(RuntimeError, match="ended with status 3"),
        brokers.started(brokers.Command("mine", f"{sys.executable} -c 'raise SystemExit(3)' {{port}}")),
    ):
        pass


def test_processors_are_named_for_the_broker_and_for_the_load(bench):
    cores = bench("cores")
    mine = sorted(os.sched_getaffinity(0))
    one, others = str(mine[0]), ",".join(map(str, mine))
    assert cores.parsed(f"{one}:{others}") == ({mine[0]}, set(mine))
    for wrong in ("0", "a:b", f"{one}:", f"{one}:{one}:{one}", ""):
        with pytest.raises(ValueError, match="is not like"):
            cores.parsed(wrong)
    with pytest.raises(ValueError, match=f"no processor {mine[-1] + 1} "):
        cores.parsed(f"{one}:{mine[-1] + 1}")


def test_broker_and_load_stay_on_their_processors_and_we_on_ours(bench, tmp_path):
    brokers, cells, cores, workloads = bench("brokers"), bench("cells"), bench("cores"), bench("workloads")
    before = os.sched_getaffinity(0)
    last = frozenset([max(before)])
    serve = "import socket, sys; s = socket.create_server(('127.0.0.1', int(sys.argv[1]))); s.accept(); s.accept()"
    # A load that tells where it runs.
    load = tmp_path / "load"
    load.write_text(
        f"#!{sys.executable}\nimport json, os\nprint(json.dumps({{'on': sorted(os.sched_getaffinity(0))}}))\n"
    )
    load.chmod(0o700)
    command = brokers.Command("mine", f'{sys.executable} -c "{serve}" {{port}}', cores=last)
    with brokers.started(command) as broker:
        assert os.sched_getaffinity(broker.pid) == last
        assert os.sched_getaffinity(0) == before
    found = cells.measure(workloads.WORKLOADS[0], command, cells.Loads(load, cores=last), 0.01)
    assert found["on"] == sorted(last)
    assert os.sched_getaffinity(0) == before
    with pytest.raises(RuntimeError), cores.on(last):
        raise RuntimeError
    assert os.sched_getaffinity(0) == before


def test_a_build_that_is_trained_keeps_what_it_is_told_and_flags_may_have_spaces(bench, monkeypatch, tmp_path):
    trained = bench("trained")
    monkeypatch.delenv("CARGO_ENCODED_RUSTFLAGS", raising=False)
    monkeypatch.setenv("RUSTFLAGS", "-C target-cpu=native")
    flags = f"-Cprofile-use={tmp_path}/a b"
    found = trained.environment(flags, tmp_path)
    assert found["CARGO_ENCODED_RUSTFLAGS"].split("\x1f") == ["-C", "target-cpu=native", flags]
    assert found["CARGO_TARGET_DIR"] == str(tmp_path)
    monkeypatch.delenv("RUSTFLAGS")
    assert trained.environment(flags, tmp_path)["CARGO_ENCODED_RUSTFLAGS"] == flags
    built = tmp_path / "built"
    for folder, name in ((built, "new.whl"), (tmp_path / "wheels", "old.whl")):
        folder.mkdir()
        (folder / name).touch()
    assert trained.keep_wheel(built, tmp_path) == tmp_path / "wheels" / "new.whl"
    assert [path.name for path in (tmp_path / "wheels").iterdir()] == ["new.whl"]


def test_a_process_has_used_time_and_memory(bench):
    cells = bench("cells")
    with subprocess.Popen(
        [sys.executable, "-c", "sum(range(10**7)); print(); input()"], stdin=-1, stdout=-1
    ) as process:
        assert process.stdout.readline() == b"\n"
        assert 0 < cells.process_seconds(process.pid) < cells.machine_seconds()
        assert cells.resident(process.pid, "VmHWM") >= cells.resident(process.pid, "VmRSS") > 1 << 20
        process.communicate(b"\n")


def test_our_broker_is_measured_in_every_kind_of_load(tmp_path):
    """End to end, with the command that the package installs."""
    rows = "pairs50_q1,rate5k_q0,matching,retained,connections"
    command = [sys.executable, str(BENCH), "--only", "ferromq", "--runs", "1", "--scale", "0.01", "--rows", rows]
    command += ["--ferromq", str(pathlib.Path(sys.executable).with_name("ferromq")), "--output", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=150, check=False)  # noqa: S603
    assert done.returncode == 0, done.stderr + done.stdout
    text = (tmp_path / "peers.md").read_text()
    figures = re.findall(r"^\| .* \| (?:CPU s per million|us|ms|B) \|.*$", text, re.MULTILINE)
    assert len(figures) == 1 + 3 + 1 + 2 + 3
    assert "fails" not in text
    assert "lost" not in text
    ET.parse(tmp_path / "peers.svg")  # noqa: S314
