"""FerroMQ: an MQTT 3.1, 3.1.1 and 5.0 broker and client.

    import ferromq

    async with ferromq.Client("mqtt://localhost") as client:
        async with client.subscribe("plant/{line}/temp", qos=1) as messages:
            async for message in messages:
                print(message.params["line"], message.json())

`Client` is for asyncio, `SyncClient` for everything else, `Broker` is a broker inside the process. Verbs are
coroutines, resources are context managers, streams are iterators, and each await means "acknowledged".
"""

from ._ferromq import (
    Broker,
    Capture,
    Client,
    ClientInfo,
    Closed,
    Connected,
    ConnectError,
    ConnectInfo,
    Connecting,
    ConnectionLost,
    DecodeError,
    Disconnected,
    FerroMQError,
    Forked,
    InvalidArgument,
    InvalidTopic,
    Message,
    NotAuthorized,
    Operation,
    Properties,
    ProtocolError,
    PublishAck,
    QueueFull,
    Reauthenticated,
    Reconnect,
    RecordBatch,
    Refused,
    Replay,
    Request,
    RetainedMessages,
    Session,
    Stream,
    Subscription,
    SyncClient,
    SyncRequest,
    SyncStream,
    SyncSubscription,
    Table,
    Timeout,
    Will,
    __version__,
    parse_pattern,
    read_parquet,
    topic_matches,
    validate_filter,
    validate_topic,
)

__all__ = [
    "Broker",
    "Capture",
    "Client",
    "ClientInfo",
    "Closed",
    "ConnectError",
    "ConnectInfo",
    "Connected",
    "Connecting",
    "ConnectionLost",
    "DecodeError",
    "Disconnected",
    "FerroMQError",
    "Forked",
    "InvalidArgument",
    "InvalidTopic",
    "Message",
    "NotAuthorized",
    "Operation",
    "Properties",
    "ProtocolError",
    "PublishAck",
    "QueueFull",
    "Reauthenticated",
    "Reconnect",
    "RecordBatch",
    "Refused",
    "Replay",
    "Request",
    "RetainedMessages",
    "Session",
    "Stream",
    "Subscription",
    "SyncClient",
    "SyncRequest",
    "SyncStream",
    "SyncSubscription",
    "Table",
    "Timeout",
    "Will",
    "__version__",
    "collect",
    "live",
    "parse_pattern",
    "read",
    "read_parquet",
    "record",
    "replay",
    "topic_matches",
    "validate_filter",
    "validate_topic",
]

# What takes time to import is imported when it is used.
_LAZY = dict.fromkeys(("collect", "live", "read", "record", "replay"), "telemetry")

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .telemetry import collect, live, read, record, replay


def __getattr__(name: str) -> object:
    if name in _LAZY:
        from importlib import import_module  # noqa: PLC0415 - an import that is not used should cost nothing

        found = getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)
        globals()[name] = found
        return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
