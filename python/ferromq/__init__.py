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
    Client,
    ClientInfo,
    Closed,
    Connected,
    ConnectError,
    ConnectInfo,
    Connecting,
    ConnectionLost,
    Disconnected,
    FerroMQError,
    Forked,
    InvalidArgument,
    InvalidTopic,
    Message,
    NotAuthorized,
    Properties,
    ProtocolError,
    PublishAck,
    QueueFull,
    Reauthenticated,
    Reconnect,
    Refused,
    Request,
    RetainedMessages,
    Session,
    Subscription,
    SyncClient,
    SyncRequest,
    SyncStream,
    SyncSubscription,
    Timeout,
    Will,
    __version__,
    parse_pattern,
    topic_matches,
    validate_filter,
    validate_topic,
)

__all__ = [
    "Broker",
    "Client",
    "ClientInfo",
    "Closed",
    "ConnectError",
    "ConnectInfo",
    "Connected",
    "Connecting",
    "ConnectionLost",
    "Disconnected",
    "FerroMQError",
    "Forked",
    "InvalidArgument",
    "InvalidTopic",
    "Message",
    "NotAuthorized",
    "Properties",
    "ProtocolError",
    "PublishAck",
    "QueueFull",
    "Reauthenticated",
    "Reconnect",
    "Refused",
    "Request",
    "RetainedMessages",
    "Session",
    "Subscription",
    "SyncClient",
    "SyncRequest",
    "SyncStream",
    "SyncSubscription",
    "Timeout",
    "Will",
    "__version__",
    "parse_pattern",
    "topic_matches",
    "validate_filter",
    "validate_topic",
]
