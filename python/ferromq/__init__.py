"""FerroMQ: an MQTT 3.1, 3.1.1 and 5.0 broker and client.

    import ferromq

    async with ferromq.Client("mqtt://localhost") as client:
        async with client.subscribe("plant/{line}/temp", qos=1) as messages:
            async for message in messages:
                print(message.params["line"], message.json())

`Client` is for asyncio, `SyncClient` for everything else, `Broker` is a broker inside the process. Verbs are
coroutines, resources are context managers, streams are iterators, and each await means "acknowledged".
"""

TYPE_CHECKING = False  # as in `typing`, which takes longer to import than this package
if TYPE_CHECKING:
    from ._ferromq import (
        Broker,
        Capture,
        Client,
        ClientInfo,
        ClientTls,
        Clock,
        Closed,
        Connected,
        ConnectError,
        ConnectInfo,
        Connecting,
        ConnectionLost,
        ConnectionTrace,
        DecodeError,
        Disconnected,
        FaultProxy,
        FaultRule,
        Faults,
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
        StorageError,
        Stream,
        Subscription,
        SyncClient,
        SyncRequest,
        SyncStream,
        SyncSubscription,
        Table,
        Timeout,
        Tls,
        Will,
        __version__,
        parse_pattern,
        read_parquet,
        topic_matches,
        validate_filter,
        validate_topic,
    )
    from .router import Router
    from .settings import Acl, Limits
    from .telemetry import collect, live, read, record, replay

__all__ = [
    "Acl",
    "Broker",
    "Capture",
    "Client",
    "ClientInfo",
    "ClientTls",
    "Clock",
    "Closed",
    "ConnectError",
    "ConnectInfo",
    "Connected",
    "Connecting",
    "ConnectionLost",
    "ConnectionTrace",
    "DecodeError",
    "Disconnected",
    "FaultProxy",
    "FaultRule",
    "Faults",
    "FerroMQError",
    "Forked",
    "InvalidArgument",
    "InvalidTopic",
    "Limits",
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
    "Router",
    "Session",
    "StorageError",
    "Stream",
    "Subscription",
    "SyncClient",
    "SyncRequest",
    "SyncStream",
    "SyncSubscription",
    "Table",
    "Timeout",
    "Tls",
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

# What is written in Python, by the module it is in.
_MODULES = (
    {"Router": "router"}
    | dict.fromkeys(("Acl", "Limits"), "settings")
    | dict.fromkeys(("collect", "live", "read", "record", "replay"), "telemetry")
)


def __getattr__(name: str) -> object:
    """Load what is asked for: a pytest run that uses no fixture of FerroMQ does not load the extension module."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415

    module = import_module(f"{__name__}.{_MODULES.get(name, '_ferromq')}")
    found = {public: getattr(module, public) for public in __all__ if hasattr(module, public)}
    globals().update(found)
    return found[name]


def __dir__() -> list[str]:
    return [*{*globals(), *__all__}]
