"""What is measured: the loads, the lines of the table that each fills, and what there is to reach."""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Figures = Mapping[str, Any]
"""What `ferromq bench --json` printed of one run."""


@dataclass(frozen=True)
class Line:
    """One line of the table."""

    what: str
    """Behind the title of its workload."""
    unit: str
    metric: str
    """Name in `figures.METRICS`."""
    reach: float | None = None
    """Share of the figure of its workload's base that is to be reached; `None` where nothing was asked for."""
    then: str = ""
    """mosquitto 2.0.11 and the best other broker when this was begun, on the machine of that day."""


@dataclass(frozen=True)
class Workload:
    """A load that brokers are put under."""

    key: str
    title: str
    arguments: tuple[str, ...]
    """Of `ferromq bench`, without host, port, duration and output."""
    lines: tuple[Line, ...]
    seconds: float = 3.0
    """How long is measured, at scale 1; 0 of a load that ends by itself."""
    counts: Mapping[str, int] = field(default_factory=dict)
    """Of a load that ends by itself: options that `--scale` changes."""
    base: str = "mosquitto"
    """What all others are compared with."""

    @property
    def has_floor(self) -> bool:
        """Whether a relay can play it: that knows neither wildcards nor QoS 2."""
        options = dict(itertools.pairwise(self.arguments))
        return options.get("--layout") in {"pairs", "fan-out"} and options.get("--qos") in {"0", "1"}


CPU = "CPU s per million"


def cpu(reach: float, then: str) -> Line:
    """What nearly every row is about."""
    return Line("", CPU, "cpu_per_million", reach, then)


def latencies() -> tuple[Line, ...]:
    """At a fixed rate speed must not be paid for with waiting."""
    return (Line("p50", "us", "p50", 1.0), Line("p99", "us", "p99", 1.0))


@dataclass(frozen=True)
class Shape:
    """Who publishes to whom, how much, and how many messages of each publisher are under way."""

    kind: str
    publishers: int
    subscribers: int
    size: int
    window: int = 32

    def options(self, qos: int) -> tuple[str, ...]:
        """Of `ferromq bench`, without a rate: a closed loop."""
        numbers = {
            "--publishers": self.publishers,
            "--subscribers": self.subscribers,
            "--size": self.size,
            "--qos": qos,
            "--window": self.window,
        }
        return ("--layout", self.kind, *(word for name, number in numbers.items() for word in (name, str(number))))


def of_qos(key: str, title: str, shape: Shape, figures: Mapping[int, Line]) -> list[Workload]:
    """The same load at several qualities of service."""
    return [
        Workload(f"{key}_q{qos}", f"{title}, QoS {qos}", shape.options(qos), (line,)) for qos, line in figures.items()
    ]


def at_rate(key: str, title: str, options: tuple[str, ...], rate: int, line: Line) -> Workload:
    """The same by the clock."""
    return Workload(key, title, (*options, "--rate", str(rate)), (line, *latencies()))


FEW = 4
"""Messages in flight of each publisher where thousands receive."""

PAIRS50 = Shape("pairs", 50, 50, 16)

WORKLOADS: tuple[Workload, ...] = (
    *of_qos(
        "pairs50",
        "50 to 50 pairs, 16 B",
        PAIRS50,
        {
            0: cpu(0.065, "4.85, FlashMQ 0.13"),
            1: cpu(0.045, "9.66, FlashMQ 0.09"),
            2: cpu(0.04, "19.7, FlashMQ 0.08"),
        },
    ),
    *of_qos(
        "fanin",
        "fan-in 100 to 1, 16 B",
        Shape("fan-in", 100, 1, 16),
        {0: cpu(0.08, "4.5, FlashMQ 0.16"), 1: cpu(0.06, "8.8, FlashMQ 0.12")},
    ),
    *of_qos(
        "fanout100",
        "fan-out 1 to 100, 64 B",
        Shape("fan-out", 1, 100, 64),
        {0: cpu(0.05, "3.4, rumqttd 0.10"), 1: cpu(0.065, "4.9, rumqttd 0.13")},
    ),
    *of_qos(
        "fanout1000",
        "fan-out 1 to 1000, 64 B",
        Shape("fan-out", 1, 1000, 64),
        {0: cpu(0.06, "5.5, rumqttd 0.13"), 1: cpu(0.06, "8.0, rumqttd 0.14")},
    ),
    *of_qos(
        "pairs2500",
        "2,500 to 2,500 pairs, 1 KiB",
        Shape("pairs", 2500, 2500, 1024, FEW),
        {0: cpu(0.33, "8.0, FlashMQ 0.44"), 1: cpu(0.26, "18.5, FlashMQ 0.34")},
    ),
    at_rate(
        "pairs2500_10k",
        "2,500 pairs, 1 KiB, 10,000 msg/s, QoS 0",
        Shape("pairs", 2500, 2500, 1024).options(0),
        10_000,
        cpu(0.5, "18.9, mosquitto 2.1 0.60"),
    ),
    Workload(
        "matching",
        "100,000 subscriptions with mixed wildcards held by 100 clients",
        (*Shape("matching", 50, 100, 16).options(0), "--filters", "1000"),
        (cpu(0.25, "8.3, mosquitto 2.1 0.79"),),
    ),
    Workload(
        "shared",
        "shared subscription 50 to 50, QoS 1",
        Shape("shared", 50, 50, 16).options(1),
        (cpu(0.07, "9.2, FlashMQ 0.14"),),
    ),
    at_rate(
        "rate50k",
        "50 pairs, 50,000 msg/s, QoS 0",
        PAIRS50.options(0),
        50_000,
        cpu(0.5, "10, mosquitto 2.1 0.93"),
    ),
    at_rate(
        "rate5k_q0",
        "50 pairs, 5,000 msg/s, QoS 0",
        PAIRS50.options(0),
        5_000,
        cpu(0.85, "10, mosquitto 2.1 1.0"),
    ),
    at_rate(
        "rate5k_q1",
        "50 pairs, 5,000 msg/s, QoS 1",
        PAIRS50.options(1),
        5_000,
        cpu(0.85, "15, mosquitto 2.1 1.0"),
    ),
    Workload(
        "single",
        "one message at a time",
        Shape("pairs", 1, 1, 16, 1).options(0),
        (cpu(0.85, "36, mosquitto 2.1 1.0"), Line("p50", "us", "p50", 1.0, "84")),
    ),
    Workload(
        "retained",
        "100,000 retained (64 B) to one wildcard subscriber",
        ("retained", "--size", "64"),
        (
            Line("CPU", "ms", "cpu_ms", 0.18, "338, FlashMQ 0.37"),
            Line("time", "ms", "elapsed_ms"),
        ),
        seconds=0,
        counts={"--count": 100_000},
    ),
    Workload(
        "connections",
        "19,500 connections",
        ("crowd", "--threads", "8", "--opening", "8"),
        (
            Line("CPU per connect", "us", "cpu_per_connect", 0.8, "14.4, mosquitto 2.1 1.0"),
            Line("time per connect", "us", "time_per_connect", 0.8, "19 (52 k/s), mosquitto 2.1 1.0"),
            Line("resident bytes of each, idle", "B", "bytes_per_connection", 0.95, "734, FlashMQ 4,306"),
        ),
        seconds=0,
        counts={"--connections": 19_500},
    ),
    *(
        Workload(
            f"grpc_q{qos}",
            f"5,000 connections, 1 KiB, 5,000 under way: gRPC echo, and QoS {qos}",
            Shape("pairs", 2500, 2500, 1024, 2).options(qos),
            (Line("", CPU, "cpu_per_million", 1 / 7, "18.9, FlashMQ 0.20"),),
            seconds=6.0,
            base="grpc",
        )
        for qos in (0, 1)
    ),
)

ECHO = ("load", "--connections", "5000", "--size", "1024")
"""The load of gRPC: as many connections, and one call under way on each."""
