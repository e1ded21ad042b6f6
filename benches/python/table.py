"""The rows of the table: what is measured, how many messages it takes of each library, and what there is to reach."""

from dataclasses import dataclass

PEERS = ("ferromq", "paho-mqtt", "aiomqtt", "gmqtt", "amqtt")

TOPIC = "bench/crossing"
JSON_TOPIC = "bench/json"

PAYLOAD_BYTES = 16
"""Of every payload but the JSON ones; they are numbered from 0 to `BLOCK` - 1, again and again."""

BLOCK = 1000
WINDOW = 100


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    key: str
    title: str
    unit: str
    best_today: str
    """The best figure of another library when this project began, on the machine of that day."""
    reach: float
    """What FerroMQ is to reach."""
    workload: str
    """Function of the peers' modules, or of `costs`."""
    counts: dict[str, int]
    """Messages for each library: a slow one gets fewer. Who is missing has no such thing."""
    server: str = "ferromq"
    """The broker on the other side: `ferromq`, `mosquitto`, or none."""
    qos: int = 0
    sends: str = ""
    """What another process sends meanwhile: `block` or `json`."""


def counts(ferromq: int, paho: int, aiomqtt: int, gmqtt: int, amqtt: int) -> dict[str, int]:
    """Messages by library."""
    return dict(zip(PEERS, (ferromq, paho, aiomqtt, gmqtt, amqtt), strict=True))


RECEIVE = counts(500_000, 40_000, 20_000, 100_000, 10_000)
RECEIVE_ACKED = counts(200_000, 30_000, 10_000, 40_000, 5_000)
SEQUENTIAL = counts(2_000, 2_000, 1_000, 2_000, 1_000)
MICROSECONDS = "CPU us/message"

ROWS = (
    Row(
        "receive_q0",
        "receive QoS 0, from our broker",
        MICROSECONDS,
        "gmqtt 2.7",
        0.25,
        "receive",
        RECEIVE,
        sends="block",
    ),
    Row(
        "receive_q0_mosquitto",
        "receive QoS 0, from mosquitto",
        MICROSECONDS,
        "gmqtt 3.4",
        0.9,
        "receive",
        RECEIVE | {"ferromq": 300_000},
        server="mosquitto",
        sends="block",
    ),
    Row(
        "receive_q1",
        "receive QoS 1, from our broker",
        MICROSECONDS,
        "4.9",
        0.8,
        "receive",
        RECEIVE_ACKED,
        qos=1,
        sends="block",
    ),
    Row(
        "receive_q1_mosquitto",
        "receive QoS 1, from mosquitto",
        MICROSECONDS,
        "4.9",
        0.8,
        "receive",
        RECEIVE_ACKED | {"ferromq": 100_000},
        server="mosquitto",
        qos=1,
        sends="block",
    ),
    Row(
        "publish_q0",
        "publish QoS 0, `await publish`",
        MICROSECONDS,
        "2.3",
        0.25,
        "publish",
        counts(500_000, 40_000, 10_000, 100_000, 10_000),
    ),
    Row(
        "publish_many_q0",
        "publish QoS 0, `publish_many`",
        MICROSECONDS,
        "-",
        0.08,
        "publish_many",
        {"ferromq": 1_000_000},
    ),
    Row(
        "publish_q1",
        f"publish QoS 1, {WINDOW} under way",
        MICROSECONDS,
        "gmqtt 9.4",
        1.5,
        "publish_windowed",
        counts(200_000, 10_000, 5_000, 30_000, 5_000),
        qos=1,
    ),
    Row("sequential", "QoS 1 one by one, round trip p50", "us", "gmqtt 33", 35, "sequential", SEQUENTIAL, qos=1),
    Row(
        "sequential_mosquitto",
        "the same, with mosquitto",
        "us",
        "gmqtt 33",
        35,
        "sequential",
        SEQUENTIAL,
        server="mosquitto",
        qos=1,
    ),
    Row(
        "frame_cpu",
        "JSON off the wire to a DataFrame, 1 M messages",
        "CPU s",
        "18.1",
        1.2,
        "frame",
        counts(1_000_000, 50_000, 20_000, 100_000, 10_000),
        sends="json",
    ),
    Row("frame_memory", "the same, memory added", "MB", "953", 200, "frame", {}),
    Row(
        "broker_start",
        "broker in the process: start to first CONNACK",
        "ms",
        "amqtt 34",
        1,
        "broker_start",
        {"ferromq": 200, "amqtt": 10},
        server="",
    ),
    Row(
        "pytest",
        "one more pytest test with a broker",
        "ms",
        "amqtt 11",
        1.5,
        "pytest",
        {"ferromq": 400, "amqtt": 50},
        server="",
    ),
    Row("import", "import", "CPU ms", "gmqtt 60", 10, "import", counts(1, 1, 1, 1, 1), server=""),
)
