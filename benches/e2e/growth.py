"""How the cost of a message grows: with connections, subscriptions, retained messages, levels, bytes, receivers."""

from dataclasses import dataclass

from workloads import FEW, PAIRS50, Shape, Workload

SECONDS = 1.5


@dataclass(frozen=True)
class Point:
    """One load of a curve."""

    x: int
    workload: Workload
    shards: int | None = None
    """Of FerroMQ; other brokers have none, and no such curve."""


@dataclass(frozen=True)
class Curve:
    """CPU of the broker for each message, against something."""

    key: str
    title: str
    axis: str
    points: tuple[Point, ...]


def loop(x: int, *arguments: str, shards: int | None = None) -> Point:
    """A closed loop."""
    return Point(x, Workload(f"at {x}", f"at {x}", arguments, (), SECONDS), shards)


def of_shards(key: str, title: str, *arguments: str) -> Curve:
    """More shards than cores are measured too: what they cost, not what they bring."""
    points = tuple(loop(count, *arguments, shards=count) for count in (1, 2, 3, 4, 8))
    return Curve(f"shards_{key}", title, "shards", points)


def replayed(count: int) -> Point:
    """Retained messages to one who subscribes to all."""
    return Point(count, Workload(f"at {count}", f"at {count}", ("retained", "--count", str(count)), (), 0))


CURVES = (
    Curve(
        "connections",
        f"pairs, 16 B, QoS 0, {FEW} under way of each",
        "connections",
        tuple(loop(2 * n, *Shape("pairs", n, n, 16, FEW).options(0)) for n in (5, 50, 250, 1000, 2500, 4500)),
    ),
    Curve(
        "subscriptions",
        "mixed wildcards held by 100 clients, QoS 0",
        "subscriptions",
        tuple(
            loop(100 * each, *Shape("matching", 50, 100, 16).options(0), "--filters", str(each))
            for each in (10, 100, 1000, 5000)
        ),
    ),
    Curve(
        "retained",
        "retained messages of 64 B to one wildcard subscriber",
        "retained messages",
        tuple(replayed(count) for count in (1_000, 10_000, 100_000, 400_000)),
    ),
    Curve(
        "depth",
        "50 pairs, 16 B, QoS 0, deep topics",
        "levels",
        tuple(loop(3 + deep, *PAIRS50.options(0), "--depth", str(deep)) for deep in (0, 4, 12, 40, 120)),
    ),
    Curve(
        "size",
        "50 pairs, QoS 0, 8 under way of each",
        "bytes of payload",
        tuple(loop(size, *Shape("pairs", 50, 50, size, 8).options(0)) for size in (16, 128, 1024, 8192, 65536)),
    ),
    Curve(
        "receivers",
        "fan-out of 64 B, QoS 0",
        "subscribers of the topic",
        tuple(loop(n, *Shape("fan-out", 1, n, 64).options(0)) for n in (1, 10, 100, 1000, 5000)),
    ),
    of_shards("pairs", "50 pairs, 16 B, QoS 0", *PAIRS50.options(0)),
    of_shards("hot_publisher", "fan-out 1 to 100, 64 B, QoS 0", *Shape("fan-out", 1, 100, 64).options(0)),
    of_shards("hot_subscriber", "fan-in 100 to 1, 16 B, QoS 0", *Shape("fan-in", 100, 1, 16).options(0)),
    of_shards("one_pair", "one pair, one message at a time", *Shape("pairs", 1, 1, 16, 1).options(0)),
)
