"""The matrix: which client speaks which version over which transport, and what of MQTT it lets a user see.

A cell that cannot exist is not listed, so nothing is skipped for it; a client that could run but is not installed
is skipped with the command that installs it.
"""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from harness import brokers

HERE = Path(__file__).resolve().parent.parent
BUILD = HERE / ".build"
ADAPTERS = HERE / "adapters"

# What a client may let its user do or see, beyond publish and subscribe.
SESSION_PRESENT = "session_present"  # tells the CONNACK flag
SILENT_RESUME = "silent_resume"  # can resume a session without a new SUBSCRIBE
UNSUBSCRIBE = "unsubscribe"
TAKEN_OVER = "closed_event"  # tells that the connection is gone
PROPERTIES = frozenset({"user_properties", "response_topic", "content_type", "message_expiry"})
OPTIONS = frozenset({"no_local", "retain_as_published", "retain_handling"})
SUBSCRIPTION_ID = "subscription_id"
TOPIC_ALIAS = "topic_alias"
LIBRARY = frozenset({SILENT_RESUME, UNSUBSCRIBE})


@dataclass(frozen=True)
class Client:
    """A foreign client, or one of ours: the process that drives it, and what it can."""

    command: tuple[str, ...]
    versions: tuple[int, ...]
    transports: tuple[str, ...]
    features: frozenset[str]
    package: str | None = None
    binary: Path | None = None
    install: str = "make interop-tools"
    ours: bool = False

    def missing(self) -> str | None:
        """Why this client cannot run here; None when it can."""
        if self.package is not None:
            try:
                metadata.version(self.package)
            except metadata.PackageNotFoundError:
                return f"{self.package} is not installed: {self.install}"
        if self.binary is not None and not self.binary.exists():
            return f"{self.binary.name} is not built: {self.install}"
        if shutil.which(self.command[0]) is None:
            return f"{self.command[0]} is not installed: {self.install}"
        return None


@dataclass(frozen=True)
class Cell:
    """One client in one version of MQTT over one transport."""

    client: str
    version: int
    transport: str

    @property
    def spec(self) -> Client:
        return CLIENTS[self.client]

    def can(self, *features: str) -> bool:
        return self.spec.features.issuperset(features)

    def __str__(self) -> str:
        return f"{self.client}-{ {4: '3.1.1', 5: '5.0'}[self.version] }-{self.transport}"


def _python(script: str, *arguments: str) -> tuple[str, ...]:
    return (sys.executable, str(ADAPTERS / script), *arguments)


EVERYTHING = LIBRARY | PROPERTIES | OPTIONS | {SESSION_PRESENT, SUBSCRIPTION_ID, TOPIC_ALIAS, TAKEN_OVER}

CLIENTS = {
    "paho": Client(_python("paho_client.py"), (4, 5), ("tcp", "ws"), EVERYTHING, package="paho-mqtt"),
    "aiomqtt": Client(
        _python("aiomqtt_client.py"), (4, 5), ("tcp", "ws"), EVERYTHING - {SESSION_PRESENT}, package="aiomqtt"
    ),
    "gmqtt": Client(_python("gmqtt_client.py"), (4, 5), ("tcp",), EVERYTHING - {TOPIC_ALIAS}, package="gmqtt"),
    "mqttjs": Client(
        ("node", str(HERE / "js" / "mqttjs.mjs")),
        (4, 5),
        ("tcp", "ws"),
        EVERYTHING,
        binary=HERE / "js" / "node_modules" / "mqtt",
    ),
    "mosquitto-cli": Client(
        _python("cli_client.py", "mosquitto"),
        (4, 5),
        ("tcp",),
        PROPERTIES,
        binary=Path(shutil.which("mosquitto_sub") or "mosquitto_sub"),
        install="sudo apt-get install mosquitto-clients",
    ),
    "paho-go-v3": Client(
        (str(BUILD / "pahov3"),),
        (4,),
        ("tcp", "ws"),
        LIBRARY | {SESSION_PRESENT, TAKEN_OVER},
        binary=BUILD / "pahov3",
    ),
    "paho-go-v5": Client((str(BUILD / "pahov5"),), (5,), ("tcp", "ws"), EVERYTHING, binary=BUILD / "pahov5"),
    "ferromq-py": Client(
        _python("ferromq_client.py"),
        (4, 5),
        ("tcp", "ws"),
        # Aliases and identifiers are its own affair, and a repeated subscription gets a queue of its own.
        EVERYTHING - {SILENT_RESUME, SUBSCRIPTION_ID, TOPIC_ALIAS, "retain_handling"},
        package="ferromq",
        install="make build",
        ours=True,
    ),
    "ferromq-cli": Client(
        _python("cli_client.py", "ferromq"),
        (4, 5),
        ("tcp", "ws"),
        PROPERTIES,
        binary=Path(brokers.ferromq_command() or "ferromq"),
        install="make build",
        ours=True,
    ),
}


def cells() -> list[Cell]:
    return [
        Cell(name, version, transport)
        for name, spec in CLIENTS.items()
        for version in spec.versions
        for transport in spec.transports
    ]


def matrix() -> list[tuple[str, Cell]]:
    """Pairs of broker and cell. Unless told otherwise: all clients against ours, our clients against mosquitto too."""
    choice = os.environ.get("INTEROP_BROKER", "")
    if choice not in {"", "ferromq", "mosquitto", "both"}:
        raise ValueError(f"INTEROP_BROKER={choice}: ferromq, mosquitto or both")
    named = [broker for broker in ("ferromq", "mosquitto") if choice in {broker, "both"}]
    if named:
        return [(broker, cell) for broker in named for cell in cells()]
    ours = [cell for cell in cells() if cell.spec.ours]
    return [("ferromq", cell) for cell in cells()] + [("mosquitto", cell) for cell in ours]


def missing(broker: str, cell: Cell) -> str | None:
    return brokers.missing(broker) or cell.spec.missing()
