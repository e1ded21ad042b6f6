# ruff: noqa: A002, ANN401, N818
# A002 and N818: names are those of MQTT and of the brevity that users want. ANN401: JSON is anything, and so is what
# event loops pass to and from awaitables.
"""The part of FerroMQ that is written in Rust. Import `ferromq` instead.

Words used below: a *payload* is bytes-like (anything with the buffer protocol), `str` (sent as UTF-8) or `None`
(empty); times are seconds; `qos` is 0 (at most once), 1 (at least once) or 2 (exactly once).
"""

import sys
from collections.abc import Callable, Coroutine, Generator, Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from os import PathLike
from pathlib import Path
from types import GenericAlias, TracebackType
from typing import Any, Generic, Literal, Protocol, Self, TypeAlias, TypeVar, final, overload

from typing_extensions import Buffer, disjoint_base

__all__ = [
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
    "cli_main",
    "parse_pattern",
    "read_parquet",
    "topic_matches",
    "validate_filter",
    "validate_topic",
]
__version__: str

_T = TypeVar("_T")
_T_co = TypeVar("_T_co", covariant=True)
_D = TypeVar("_D")
_F = TypeVar("_F", bound=Callable[[ConnectInfo], bool | int])

_Payload: TypeAlias = Buffer | str | None
_Pem: TypeAlias = str | bytes | PathLike[str]
_Span: TypeAlias = float | str | timedelta
_Direction: TypeAlias = Literal["to_broker", "to_client"]
_Packet: TypeAlias = Literal[
    "CONNECT",
    "CONNACK",
    "PUBLISH",
    "PUBACK",
    "PUBREC",
    "PUBREL",
    "PUBCOMP",
    "SUBSCRIBE",
    "SUBACK",
    "UNSUBSCRIBE",
    "UNSUBACK",
    "PINGREQ",
    "PINGRESP",
    "DISCONNECT",
    "AUTH",
]
_QoS: TypeAlias = Literal[0, 1, 2]
_Encode: TypeAlias = Literal["json", "text"]
_UserProperties: TypeAlias = Mapping[str, str] | Iterable[tuple[str, str]]
_Version: TypeAlias = Literal[5, 4, 3, "5", "5.0", "4", "3.1.1", "3", "3.1"]
_Overflow: TypeAlias = Literal["block", "drop_oldest", "drop_new", "latest_per_topic", "error"]
_Ack: TypeAlias = Literal["auto", "processed", "manual"]
_RetainHandling: TypeAlias = Literal["send", "new", "none"]
_State: TypeAlias = Literal["disconnected", "connecting", "connected", "reconnecting"]
_Event: TypeAlias = Connecting | Connected | Disconnected | Reauthenticated

# --- what verbs return -----------------------------------------------------------------------------------------------

@final
class Operation(Coroutine[Any, Any, _T_co]):
    """A verb under way: await it for its result.

    The work begins with the call, not with the await, so publications keep the order of their calls, and arguments
    that cannot be are refused by the call. It is a coroutine for `asyncio.create_task`, `gather` and the like. Awaiting
    it again gives the same result again. Of 256 operations that never had to wait, one gives the event loop a turn.
    """

    def __class_getitem__(cls, item: Any, /) -> GenericAlias: ...
    def __await__(self) -> Generator[Any, None, _T_co]: ...
    def __iter__(self) -> Iterator[Any]: ...
    def __next__(self) -> Any: ...
    def send(self, value: None, /) -> Any:
        """Resume, as event loops do."""

    @overload
    def throw(
        self,
        exception: type[BaseException],
        value: BaseException | object = ...,
        traceback: TracebackType | None = ...,
        /,
    ) -> Any: ...
    @overload
    def throw(self, exception: BaseException, value: None = ..., traceback: TracebackType | None = ..., /) -> Any:
        """Raise an exception at the place that waits."""

    def close(self) -> None:
        """Stop waiting; the work is given up if it can be."""

@final
class Stream(Generic[_T]):
    """An asynchronous iterator over messages, events or batches, from a bounded queue.

    It has one consumer: a second `anext()` while another waits raises `RuntimeError`. Cancelling an `anext()` loses
    nothing. While items are at hand, the event loop gets one turn in 128 items.
    """

    def __class_getitem__(cls, item: Any, /) -> GenericAlias: ...
    def __aiter__(self) -> Self: ...
    def __anext__(self) -> Operation[_T]: ...
    def __await__(self) -> Generator[Any, None, _T]: ...
    def __iter__(self) -> Iterator[Any]: ...
    def __next__(self) -> Any: ...
    def send(self, value: None, /) -> Any:
        """Resume, as event loops do."""

    @overload
    def throw(self, exception: BaseException, /) -> Any: ...
    @overload
    def throw(
        self,
        exception: type[BaseException],
        value: BaseException | object = ...,
        traceback: TracebackType | None = ...,
        /,
    ) -> Any:
        """Raise an exception at the place that waits."""

    def close(self) -> None:
        """Stop waiting; the work is given up if it can be."""

# --- exceptions ------------------------------------------------------------------------------------------------------

class FerroMQError(Exception):
    """Base of all exceptions of FerroMQ."""

    reason_code: int | None
    """MQTT reason code, `None` if the protocol has none for it."""
    reason_string: str | None
    """What the server said about it in words (MQTT 5)."""
    user_properties: tuple[tuple[str, str], ...]
    """User properties of the packet that told of it (MQTT 5)."""
    packet: str | None
    """The packet concerned, as `"CONNECT"` or `"PUBLISH"`."""
    retryable: bool
    """Whether the same attempt, made again later, may succeed."""

class ConnectError(FerroMQError, ConnectionError):
    """No connection could be made: look-up, network or transport failed."""

class ConnectionLost(FerroMQError, ConnectionError):
    """The connection ended, or is not there."""

class Refused(FerroMQError):
    """The server refused a connection, publication or subscription."""

class NotAuthorized(Refused):
    """The server refused it for lack of credentials or permission."""

class ProtocolError(FerroMQError):
    """The peer violated the protocol."""

class QueueFull(FerroMQError):
    """A bounded queue is full and its policy is not to wait."""

class Timeout(FerroMQError, TimeoutError):
    """It took longer than allowed."""

class Closed(FerroMQError):
    """The client, broker or subscription is closed, or was never opened."""

class InvalidArgument(FerroMQError, ValueError):
    """A value that MQTT, or this server, has no way to carry."""

class InvalidTopic(InvalidArgument):
    """Not a valid topic name or topic filter."""

class DecodeError(FerroMQError, ValueError):
    """A payload is not what its decoder expects."""

class Forked(FerroMQError, RuntimeError):
    """Used in a forked child: the threads behind it stayed with the parent."""

class StorageError(FerroMQError, OSError):
    """A store or spool cannot be used: in use, damaged, somebody else's, or the disk is full."""

# --- messages --------------------------------------------------------------------------------------------------------

class _ArrowStream(Protocol):
    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object: ...

_Decode: TypeAlias = str | tuple[str, Sequence[str]]
_Schema: TypeAlias = Mapping[str, Any]

@final
class Message(Buffer):
    """A message that came in.

    `memoryview(message)` shows the payload without a copy. Everything else is made when asked for, and made again when
    asked again, so keep what you use often.
    """

    @property
    def topic(self) -> str:
        """Topic name."""

    @property
    def payload(self) -> bytes:
        """The payload, copied out."""

    @property
    def qos(self) -> int:
        """Quality of service it was delivered with."""

    @property
    def retain(self) -> bool:
        """Whether it comes from the retained messages, or was published as one (`retain_as_published`)."""

    @property
    def dup(self) -> bool:
        """Whether the server has sent it before."""

    @property
    def properties(self) -> Properties:
        """MQTT 5 properties; all absent in older versions."""

    @property
    def props(self) -> Properties:
        """The same as `properties`, for short."""

    @property
    def params(self) -> dict[str, str]:
        """What stood in the topic for each `{name}` of the filter."""

    @property
    def received_at(self) -> float:
        """When it was read from the socket, as `time.time()` counts."""

    def text(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """The payload as text.

        Raises:
            UnicodeDecodeError: It is none.
        """

    def json(self) -> Any:
        """The payload as JSON.

        Raises:
            ValueError: It is none.
        """

    def ack(self, reason_code: int = 0) -> Operation[None]:
        """Acknowledge it, if subscribed with `ack="manual"`. Nothing happens for QoS 0 and for a second time.

        Args:
            reason_code: 0x80 and above refuses the message (MQTT 5).

        Raises:
            RuntimeError: The subscription acknowledges by itself.
            InvalidArgument: No such reason code.
        """

    def __bytes__(self) -> bytes: ...
    def __len__(self) -> int: ...
    def __bool__(self) -> bool: ...
    if sys.version_info >= (3, 12):
        def __buffer__(self, flags: int, /) -> memoryview: ...

@final
class Properties:
    """MQTT 5 properties of a message. False if there are none."""

    @property
    def message_expiry(self) -> int | None:
        """Seconds that the message had left when the server sent it."""

    @property
    def content_type(self) -> str | None:
        """Content type, by convention a MIME type."""

    @property
    def response_topic(self) -> str | None:
        """Where an answer is expected."""

    @property
    def correlation_data(self) -> bytes | None:
        """What an answer has to carry."""

    @property
    def payload_format(self) -> int | None:
        """1 if the sender says that the payload is UTF-8."""

    @property
    def user_properties(self) -> tuple[tuple[str, str], ...]:
        """Pairs of names and values, in order; names may repeat."""

    @property
    def subscription_identifiers(self) -> tuple[int, ...]:
        """Identifiers of the subscriptions it matches."""

    def __bool__(self) -> bool: ...

@final
class PublishAck:
    """The end of a publication. For QoS 0 it says that the message was handed to the connection."""

    @property
    def reason_code(self) -> int:
        """0 is success, 0x10 success without any subscriber. Failures are raised."""

    @property
    def reason_string(self) -> str | None:
        """What the server said about it in words."""

    @property
    def user_properties(self) -> tuple[tuple[str, str], ...]:
        """User properties of the acknowledgement."""

@final
class Request:
    """A request that came in with `Client.serve`, to be answered once."""

    @property
    def message(self) -> Message:
        """The whole message."""

    @property
    def topic(self) -> str:
        """Topic name."""

    @property
    def payload(self) -> bytes:
        """The payload, copied out."""

    @property
    def params(self) -> dict[str, str]:
        """What stood in the topic for each `{name}` of the filter."""

    @property
    def response_topic(self) -> str:
        """Where the answer goes."""

    def text(self) -> str:
        """The payload as UTF-8 text."""

    def json(self) -> Any:
        """The payload as JSON."""

    def respond(self, payload: _Payload | object = None, *, encode: _Encode | None = None) -> Operation[PublishAck]:
        """Answer with the QoS of the request.

        Raises:
            RuntimeError: The request was answered already.
        """

@final
class SyncRequest:
    """A request that came in with `SyncClient.serve`, to be answered once."""

    @property
    def message(self) -> Message:
        """The whole message."""

    @property
    def topic(self) -> str:
        """Topic name."""

    @property
    def payload(self) -> bytes:
        """The payload, copied out."""

    @property
    def params(self) -> dict[str, str]:
        """What stood in the topic for each `{name}` of the filter."""

    @property
    def response_topic(self) -> str:
        """Where the answer goes."""

    def text(self) -> str:
        """The payload as UTF-8 text."""

    def json(self) -> Any:
        """The payload as JSON."""

    def respond(self, payload: _Payload | object = None, *, encode: _Encode | None = None) -> PublishAck:
        """Answer with the QoS of the request, and wait for the acknowledgement.

        Raises:
            RuntimeError: The request was answered already.
        """

# --- settings --------------------------------------------------------------------------------------------------------

@final
class Will:
    """The message that the server publishes should the client vanish.

    Args:
        topic: Topic name.
        payload: Payload.
        qos: Quality of service.
        retain: Keep it as the retained message of the topic.
        delay: How long the server waits for the client to come back first (MQTT 5).
        encode: As in `Client.publish`, and so for the rest.

    Raises:
        InvalidTopic: The topic is not valid.
    """

    def __new__(
        cls,
        topic: str,
        payload: _Payload | object = None,
        *,
        qos: _QoS = 0,
        retain: bool = False,
        delay: float = 0.0,
        encode: _Encode | None = None,
        message_expiry: float | None = None,
        content_type: str | None = None,
        response_topic: str | None = None,
        correlation_data: _Payload = None,
        user_properties: _UserProperties | None = None,
        payload_format: Literal[0, 1] | None = None,
    ) -> Self: ...
    @property
    def topic(self) -> str:
        """Topic name."""

    @property
    def payload(self) -> bytes:
        """Payload."""

    @property
    def qos(self) -> int:
        """Quality of service."""

    @property
    def retain(self) -> bool:
        """Whether it is retained."""

    @property
    def delay(self) -> int:
        """Seconds that the server waits first."""

@final
class Reconnect:
    """How to reconnect: the n-th wait is random between 0 and `min * factor ** n`, at most `max` seconds.

    Args:
        min: Bound of the first wait.
        max: Bound of all waits.
        factor: Growth of the bound.
        attempts: Attempts in a row before giving up; `None` is never.
        stable_after: A connection that lasted this long starts with short waits again.
        first: Retry the very first connection, too, instead of raising: connecting waits until it succeeds, or
            `attempts` have failed.
    """

    def __new__(
        cls,
        *,
        min: float = 0.1,
        max: float = 30.0,
        factor: float = 2.0,
        attempts: int | None = None,
        stable_after: float = 10.0,
        first: bool = False,
    ) -> Self: ...
    @property
    def min(self) -> float:
        """Bound of the first wait."""

    @property
    def max(self) -> float:
        """Bound of all waits."""

    @property
    def factor(self) -> float:
        """Growth of the bound."""

    @property
    def attempts(self) -> int | None:
        """Attempts in a row before giving up."""

    @property
    def stable_after(self) -> float:
        """Seconds after which a connection counts as stable."""

    @property
    def first(self) -> bool:
        """Whether the first connection is retried."""

    def __eq__(self, value: object, /) -> bool: ...
    def __ne__(self, value: object, /) -> bool: ...
    __hash__: None  # type: ignore[assignment]

@final
class Session:
    """A session that outlives its connection: the server keeps subscriptions and queues messages meanwhile.

    Args:
        expiry: How long, in seconds; infinite by default. Before MQTT 5 only infinite and 0 (no longer than the
            connection) can be asked for, and other values are refused when the client is made.
        clean_start: Forget what the server kept from earlier runs (MQTT 5).
        spool: Path of a file that keeps publications with QoS 1 and 2, and what QoS 2 needs, until they are done, so
            that they survive the process: the next one with the same `client_id` and `spool` completes them. What was
            accepted is in the file a few milliseconds later; `Client.flush` waits for that. Needs a `client_id`.
        spool_bytes_max: Bytes of publications in the spool, which are in memory, too; what does not fit waits, or
            raises `QueueFull`.

    Raises:
        InvalidArgument: A `spool` with `clean_start`, or without an `expiry`.
    """

    def __new__(
        cls,
        expiry: float = 1e999,
        *,
        clean_start: bool = False,
        spool: str | PathLike[str] | None = None,
        spool_bytes_max: int = 67108864,
    ) -> Self: ...
    @property
    def expiry(self) -> float:
        """Seconds."""

    @property
    def clean_start(self) -> bool:
        """Whether earlier state is forgotten."""

    @property
    def spool(self) -> Path | None:
        """The file that keeps publications."""

    @property
    def spool_bytes_max(self) -> int:
        """Bytes of publications in it."""

    def __eq__(self, value: object, /) -> bool: ...
    def __ne__(self, value: object, /) -> bool: ...
    __hash__: None  # type: ignore[assignment]

# --- events ----------------------------------------------------------------------------------------------------------

@final
class Connecting:
    """An attempt to connect begins."""

    __match_args__ = ("server",)

    @property
    def server(self) -> str:
        """Address of the server."""

@final
class Connected:
    """The server accepted the connection."""

    __match_args__ = ("session_present",)

    @property
    def server(self) -> str:
        """Address of the server."""

    @property
    def session_present(self) -> bool:
        """Whether the server had kept the session. If not, subscriptions are made again by themselves."""

    @property
    def user_properties(self) -> tuple[tuple[str, str], ...]:
        """User properties of CONNACK."""

@final
class Disconnected:
    """The connection ended, or an attempt failed."""

    __match_args__ = ("reason", "retry_in")

    @property
    def reason(self) -> FerroMQError | None:
        """Why; `None` if this client asked for it."""

    @property
    def retry_in(self) -> float | None:
        """Seconds to the next attempt; `None` if there is none."""

@final
class Reauthenticated:
    """Client and server have authenticated each other again."""

# --- clients ---------------------------------------------------------------------------------------------------------

@final
class Tls:
    """A listener with TLS, for `Broker(listeners=[...])`.

        tls = ferromq.Tls("0.0.0.0:8883", cert="server.pem", key="server.key")
        with ferromq.Broker(listeners=[tls]) as broker: ...

    Without a certificate one is made that is signed by itself, for tests: clients that are to believe it pass
    `tls=ferromq.ClientTls(ca=tls.certificate)`.

    Args:
        address: Where to listen, `host:port`; port 0 is any that is free.
        cert: Certificate, followed by those between it and a trusted one: the path of a PEM file, or the text.
        key: Its private key, without a passphrase: the path of a PEM file, or the text.
        client_ca: Clients must show a certificate that one of these has signed: a path, or the text.
        path: Of a WebSocket endpoint, such as `/mqtt`; by default plain MQTT is spoken.
        max_connections: At one time; 0 is no limit.

    Raises:
        InvalidArgument: The address is not one, or only one of `cert` and `key` is there.
    """

    def __new__(
        cls,
        address: str = "127.0.0.1:0",
        *,
        cert: _Pem | None = None,
        key: _Pem | None = None,
        client_ca: _Pem | None = None,
        path: str | None = None,
        max_connections: int = 0,
    ) -> Self: ...
    @property
    def certificate(self) -> str:
        """The server's certificate, PEM: what a client takes for `ca` if it was made here.

        Raises:
            InvalidArgument: The file cannot be read.
        """

@final
class ClientTls:
    """How a client checks the server of `mqtts://` and `wss://`, and proves who it is.

    Args:
        ca: Certificates of those to trust, in place of those whom the system trusts: a PEM file's path, or the text.
        cert: The client's own certificate, if the server asks for one: a path, or the text.
        key: Its private key, without a passphrase.
        server_name: The name that the server's certificate must bear, if it is not the host of the URL.
        verify: Whether the certificate is checked at all. Without it, whoever is in between reads along.
        alpn: Protocols to offer (RFC 7301), such as `x-amzn-mqtt-ca` for AWS IoT Core at port 443.

    Raises:
        InvalidArgument: Only one of `cert` and `key` is there.
    """

    def __new__(
        cls,
        *,
        ca: _Pem | None = None,
        cert: _Pem | None = None,
        key: _Pem | None = None,
        server_name: str | None = None,
        verify: bool = True,
        alpn: Sequence[str] | None = None,
    ) -> Self: ...
    @property
    def verify(self) -> bool:
        """Whether the server's certificate is checked."""

    @property
    def server_name(self) -> str | None:
        """The name that the server's certificate must bear."""

    def __eq__(self, value: object, /) -> bool: ...
    def __ne__(self, value: object, /) -> bool: ...
    __hash__: None  # type: ignore[assignment]

@disjoint_base
class Client:
    """An MQTT client for asyncio.

        async with ferromq.Client("mqtt://localhost") as client:
            await client.publish("plant/1/temp", "21.5", qos=1)

    Entered means connected (CONNACK); left means everything is sent and acknowledged, and DISCONNECT is sent. It
    reconnects by itself, and its subscriptions with it; `events()` tells. Needs a running asyncio loop, any kind, and
    may be used from several.

    Args:
        server: `mqtt://host:port`, `mqtts://`, `ws://host:port/path`, `wss://` or `unix:///path`, several of them to be
            tried in turn, or a `Broker` of this process. Default `mqtt://localhost:1883`.
        client_id: Client identifier; empty lets the server choose one, and with MQTT 3.1 has one made up. Before MQTT 5
            a session needs one.
        version: 5 (5.0), 4 (3.1.1) or 3 (3.1).
        username: User name.
        password: Password.
        keep_alive: Seconds after which a silent connection is probed; 0 never.
        session: Keep the session at the server between connections; by default it ends with the connection.
        will: What the server publishes should this client vanish.
        reconnect: `False`, `True` for the defaults of `Reconnect`, or how.
        timeout: For connecting, subscribing and leaving, and for the answer to a probe, which has 10 s at most.
        receive_maximum: QoS 1 and 2 messages the server may have unacknowledged towards this client.
        max_packet_size: Larger packets are not accepted, bytes.
        max_queued: Publications that may wait for a connection or for acknowledgements.
        max_queued_bytes: Their bytes.
        queue_qos0: Whether QoS 0 publications wait while there is no connection, or raise.
        user_properties: User properties of CONNECT (MQTT 5).
        tls: Whom to believe at `mqtts://` and `wss://`; by default those whom the system trusts.
        clock: For tests: a clock to live by that can be advanced, as `broker.clock`. A client of a `Broker` has its.

    Raises:
        InvalidArgument: A value cannot be.
    """

    def __new__(
        cls,
        server: str | Iterable[str] | Broker | None = None,
        *,
        client_id: str = "",
        version: _Version = 5,
        username: str | None = None,
        password: _Payload = None,
        keep_alive: int = 60,
        session: Session | None = None,
        will: Will | None = None,
        reconnect: Reconnect | bool | None = True,
        timeout: float = 10.0,
        receive_maximum: int = 1024,
        max_packet_size: int | None = None,
        max_queued: int = 100_000,
        max_queued_bytes: int = 67_108_864,
        queue_qos0: bool = True,
        user_properties: _UserProperties | None = None,
        tls: ClientTls | None = None,
        clock: Clock | None = None,
    ) -> Self: ...
    def __aenter__(self) -> Operation[Self]: ...
    def __aexit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> Operation[None]: ...
    def connect(self) -> Operation[Self]:
        """Connect; `async with` does it, too.

        With `Reconnect(first=True)` it tries again until it is connected, or `attempts` have failed: `timeout` limits
        each attempt, and `asyncio.timeout` all of them.

        Raises:
            ConnectError: No server could be reached.
            ConnectionLost: The server closed the connection without an answer.
            ProtocolError: What it answered is not MQTT.
            Refused: The server refused; `NotAuthorized` for bad credentials.
            Timeout: It took longer than `timeout`.
            Closed: It is connected already. As with wrong arguments of all verbs, the call raises and not the await.
        """

    def _connect_blocking(self) -> None: ...
    def _disconnect_blocking(self, is_hasty: bool) -> None: ...
    def disconnect(self, *, with_will: bool = False) -> Operation[None]:
        """Finish what is under way and disconnect.

        Args:
            with_will: Have the server publish the will nevertheless (MQTT 5).

        Raises:
            InvalidArgument: `with_will` before MQTT 5.
        """

    def publish(
        self,
        topic: str,
        payload: _Payload | object = None,
        *,
        qos: _QoS = 0,
        retain: bool = False,
        encode: _Encode | None = None,
        timeout: float | None = None,
        message_expiry: float | None = None,
        content_type: str | None = None,
        response_topic: str | None = None,
        correlation_data: _Payload = None,
        user_properties: _UserProperties | None = None,
        payload_format: Literal[0, 1] | None = None,
    ) -> Operation[PublishAck]:
        """Publish. Awaited means: handed over (QoS 0), or acknowledged by the server (QoS 1 and 2).

        The message is on its way when this returns, awaited or not. While there is no connection it waits in a queue;
        if there is no room, the await waits.

        Args:
            topic: Topic name.
            payload: Payload; any object with `encode`.
            qos: Quality of service.
            retain: Keep it as the retained message of the topic.
            encode: `"json"` (compact; infinite numbers and NaN are not JSON and refused), or `"text"` for
                `str(payload)`.
            timeout: How long the acknowledgement may take; `None` does not limit it. The message stays on its way.
            message_expiry: Seconds after which it need not be delivered any more (MQTT 5, and so for the rest).
            content_type: By convention a MIME type.
            response_topic: Where an answer is expected.
            correlation_data: What an answer has to carry.
            user_properties: A mapping, or pairs if names repeat.
            payload_format: 1 says that the payload is UTF-8.

        Raises:
            InvalidTopic: The topic is not valid.
            InvalidArgument: The server, or the version of MQTT, does not support it.
            Refused: The server refused it; `NotAuthorized` for lack of permission.
            ConnectionLost: No connection, and `queue_qos0=False`.
            Timeout: It took longer than `timeout`.
            Closed: The client is not connected and will not be.
        """

    def publish_nowait(
        self,
        topic: str,
        payload: _Payload | object = None,
        *,
        qos: _QoS = 0,
        retain: bool = False,
        encode: _Encode | None = None,
        message_expiry: float | None = None,
        content_type: str | None = None,
        response_topic: str | None = None,
        correlation_data: _Payload = None,
        user_properties: _UserProperties | None = None,
        payload_format: Literal[0, 1] | None = None,
    ) -> None:
        """Publish without ever waiting. What becomes of it, nobody hears; QoS 1 and 2 are kept up nevertheless.

        Raises:
            QueueFull: There is no room now.
        """

    @overload
    def publish_many(
        self,
        messages: Iterable[tuple[str, _Payload | object]],
        *,
        topic: None = None,
        payload: None = None,
        qos: _QoS = 0,
        retain: bool = False,
        encode: _Encode | None = None,
        timeout: float | None = None,
    ) -> Operation[int]: ...
    @overload
    def publish_many(
        self,
        messages: Iterable[_Payload | object],
        *,
        topic: str,
        payload: None = None,
        qos: _QoS = 0,
        retain: bool = False,
        encode: _Encode | None = None,
        timeout: float | None = None,
    ) -> Operation[int]: ...
    @overload
    def publish_many(
        self,
        messages: _ArrowStream,
        *,
        topic: str | None = None,
        payload: str | None = None,
        qos: _QoS = 0,
        retain: bool = False,
        encode: Literal["json"] | None = None,
        timeout: float | None = None,
    ) -> Operation[int]:
        """Publish `(topic, payload)` pairs, or payloads for one topic, with one await for all; how many there were.

        Or the rows of a table: any object with `__arrow_c_stream__`, such as a frame of polars or pandas. `topic` and
        `payload` name columns then, by default `topic` and `payload`; a `topic` that is no column is that of all rows.
        With `encode="json"` a row is an object of all columns but the topic.

        Raises:
            Refused: The server refused one of them. The others were sent nevertheless.
        """

    def flush(self) -> Operation[None]:
        """Wait until everything accepted so far is in the session's spool, where a crash cannot reach it.

        Publishing waits for the server, and not for the disk.

        Raises:
            InvalidArgument: There is no spool.
            StorageError: It cannot be written.
        """

    def subscribe(
        self,
        *filters: str | Iterable[str],
        qos: _QoS = 0,
        maxsize: int = 65_536,
        max_bytes: int = 67_108_864,
        overflow: _Overflow = "block",
        ack: _Ack = "auto",
        no_local: bool = False,
        retain_as_published: bool = False,
        retain_handling: _RetainHandling = "send",
        user_properties: _UserProperties | None = None,
    ) -> Subscription[Message]:
        """Subscribe. SUBSCRIBE is sent by `async with`, by `await`, or by beginning to iterate.

        Args:
            filters: Topic filters. A level may be a named wildcard, as in `"plant/{line}/temp"` (the same as
                `plant/+/temp`), and the last one the rest, as in `"plant/{rest:#}"`; `Message.params` has the values.
            qos: Greatest quality of service to deliver with.
            maxsize: Messages that may wait here.
            max_bytes: Their bytes.
            overflow: What happens when more come: `"block"` stops reading the socket until there is room, so the
                server holds them; `"drop_oldest"`; `"drop_new"`; `"latest_per_topic"` keeps one for each topic;
                `"error"` ends the subscription with `QueueFull`. While it blocks, nothing else of this client is read
                either: a queue that nobody empties holds up its other subscriptions. Only while an answer to the
                client itself is awaited (an acknowledgement, SUBACK, a response), reading goes on, and up to 64 MiB
                wait beside the queue.
            ack: When QoS 1 and 2 messages are acknowledged: `"auto"` as they come in; `"processed"` when the next one
                is asked for, or the block is left without an exception: at least once, without more code;
                `"manual"` by `Message.ack`.
            no_local: Not what this client publishes itself (MQTT 5).
            retain_as_published: Leave the retain flag as it was published (MQTT 5).
            retain_handling: Which retained messages to send at once: `"send"` all, `"new"` all if the subscription did
                not exist, or `"none"` (MQTT 5).
            user_properties: User properties of SUBSCRIBE (MQTT 5).

        Raises:
            InvalidTopic: A filter is not valid.
            Closed: The client is not connected.
            Refused: When entered: the server refused all filters.
        """

    def unsubscribe(self, *filters: str) -> Operation[None]:
        """Unsubscribe from filters of a resumed session, for which there is no `Subscription` object."""

    def request(
        self,
        topic: str,
        payload: _Payload | object = None,
        *,
        qos: _QoS = 0,
        encode: _Encode | None = None,
        timeout: float = 10.0,
        content_type: str | None = None,
        message_expiry: float | None = None,
        user_properties: _UserProperties | None = None,
        payload_format: Literal[0, 1] | None = None,
    ) -> Operation[Message]:
        """Send a request and wait for its answer (MQTT 5).

        Raises:
            Timeout: No answer in time.
            InvalidArgument: The version is not 5.
        """

    def serve(
        self, *filters: str | Iterable[str], qos: _QoS = 1, maxsize: int = 65_536, max_bytes: int = 67_108_864
    ) -> Subscription[Request]:
        """Take requests, to be answered with `Request.respond` (MQTT 5).

        A message without a valid response topic is no request: it is acknowledged, counted in `dropped`, and not given
        out.

        Raises:
            InvalidArgument: The version is not 5.
        """

    def events(self) -> Stream[_Event]:
        """What happens to the connection from now on, or to the next one if there is none.

        Asked for before `connect()`, it has the first CONNACK, too. It ends with the connection's last event, when
        the client does not try again. Who lags loses the oldest of 256.
        """

    @property
    def client_id(self) -> str:
        """The client identifier in use."""

    @property
    def spooled(self) -> int:
        """Publications with QoS 1 and 2 in the spool, those of earlier processes included; 0 without one."""

    @property
    def connected(self) -> bool:
        """Whether there is a connection now."""

    @property
    def session_present(self) -> bool | None:
        """Whether the server had kept the session when this client connected last; `None` if it is not connected."""

    @property
    def state(self) -> _State:
        """Whether there is a connection, or one is sought."""

    def _repr_html_(self) -> str: ...
    def stats(self) -> dict[str, int]:
        """Counters: messages, connections, bytes."""

@final
class Subscription(Generic[_T]):
    """Messages of some filters, in a bounded queue of their own.

        async with client.subscribe("plant/#", qos=1) as messages:
            async for message in messages: ...

    Entered means granted (SUBACK); left means unsubscribed. One consumer at a time. It ends when nobody refers to it
    any more; a `RuntimeWarning` tells of one that nobody has read.
    """

    def __class_getitem__(cls, item: Any, /) -> GenericAlias: ...
    def __aenter__(self) -> Operation[Self]: ...
    def __aexit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> Operation[None]: ...
    def __await__(self) -> Generator[Any, None, Self]: ...
    def __aiter__(self) -> Stream[_T]: ...
    def __anext__(self) -> Operation[_T]: ...
    def batches(self, max: int = 1000, within: float = 0.1) -> Stream[list[_T]]:
        """Lists of up to `max` messages, given out when full, or `within` so many seconds of the first."""

    def _open_blocking(self) -> None: ...
    def _close_blocking(self) -> None: ...
    def _take_blocking(self, max: int, timeout: float) -> list[_T]: ...
    def arrow(
        self,
        max: int = 65_536,
        within: float = 0.5,
        *,
        decode: _Decode | None = None,
        schema: _Schema | None = None,
        on_error: Literal["null", "raise", "raw"] = "null",
    ) -> Stream[RecordBatch]:
        """Batches of up to `max` messages as columns, given out when full, or `within` so many seconds of the first.

        Columns and arguments are those of `ferromq.collect`. Types that were learnt stay: a batch has at least the
        columns of the one before. `max` is to be no more than `maxsize` of the subscription.
        """

    def unsubscribe(self) -> Operation[None]:
        """End it; what waits is dropped."""

    @property
    def filters(self) -> list[str]:
        """The filters, with plain wildcards."""

    @property
    def granted(self) -> list[int]:
        """Granted QoS, or the reason code of a refusal, for each filter; empty before SUBACK."""

    @property
    def pending(self) -> int:
        """Messages that wait: up to `maxsize` in the queue, and as many, but 256 at most, on their way out of it."""

    @property
    def lag(self) -> float:
        """How long the oldest message that waits has waited, seconds; 0 if none does."""

    @property
    def dropped(self) -> int:
        """Messages that `overflow` has dropped, and those of `serve` that were no requests."""

@disjoint_base
class SyncClient:
    """An MQTT client that blocks. It needs no event loop and works inside one, as in Jupyter.

        with ferromq.SyncClient("mqtt://localhost") as client:
            client.publish("plant/1/temp", "21.5", qos=1)

    Waiting lets other threads run, and Ctrl-C ends it. All arguments and exceptions are those of `Client`.
    """

    def __new__(
        cls,
        server: str | Iterable[str] | Broker | None = None,
        *,
        client_id: str = "",
        version: _Version = 5,
        username: str | None = None,
        password: _Payload = None,
        keep_alive: int = 60,
        session: Session | None = None,
        will: Will | None = None,
        reconnect: Reconnect | bool | None = True,
        timeout: float = 10.0,
        receive_maximum: int = 1024,
        max_packet_size: int | None = None,
        max_queued: int = 100_000,
        max_queued_bytes: int = 67_108_864,
        queue_qos0: bool = True,
        user_properties: _UserProperties | None = None,
        tls: ClientTls | None = None,
        clock: Clock | None = None,
    ) -> Self: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None: ...
    def connect(self) -> Self:
        """Connect; `with` does it, too."""

    def disconnect(self, *, with_will: bool = False) -> None:
        """Finish what is under way and disconnect."""

    def publish(
        self,
        topic: str,
        payload: _Payload | object = None,
        *,
        qos: _QoS = 0,
        retain: bool = False,
        encode: _Encode | None = None,
        timeout: float | None = None,
        message_expiry: float | None = None,
        content_type: str | None = None,
        response_topic: str | None = None,
        correlation_data: _Payload = None,
        user_properties: _UserProperties | None = None,
        payload_format: Literal[0, 1] | None = None,
    ) -> PublishAck:
        """Publish, and wait until it is handed over (QoS 0) or acknowledged (QoS 1 and 2). As `Client.publish`."""

    def publish_nowait(
        self,
        topic: str,
        payload: _Payload | object = None,
        *,
        qos: _QoS = 0,
        retain: bool = False,
        encode: _Encode | None = None,
        message_expiry: float | None = None,
        content_type: str | None = None,
        response_topic: str | None = None,
        correlation_data: _Payload = None,
        user_properties: _UserProperties | None = None,
        payload_format: Literal[0, 1] | None = None,
    ) -> None:
        """Publish without ever waiting. As `Client.publish_nowait`."""

    @overload
    def publish_many(
        self,
        messages: Iterable[tuple[str, _Payload | object]],
        *,
        topic: None = None,
        payload: None = None,
        qos: _QoS = 0,
        retain: bool = False,
        encode: _Encode | None = None,
        timeout: float | None = None,
    ) -> int: ...
    @overload
    def publish_many(
        self,
        messages: Iterable[_Payload | object],
        *,
        topic: str,
        payload: None = None,
        qos: _QoS = 0,
        retain: bool = False,
        encode: _Encode | None = None,
        timeout: float | None = None,
    ) -> int: ...
    @overload
    def publish_many(
        self,
        messages: _ArrowStream,
        *,
        topic: str | None = None,
        payload: str | None = None,
        qos: _QoS = 0,
        retain: bool = False,
        encode: Literal["json"] | None = None,
        timeout: float | None = None,
    ) -> int:
        """Publish many, and wait for all; how many there were. As `Client.publish_many`."""

    def flush(self) -> None:
        """Wait until everything accepted so far is in the session's spool. As `Client.flush`."""

    def subscribe(
        self,
        *filters: str | Iterable[str],
        qos: _QoS = 0,
        maxsize: int = 65_536,
        max_bytes: int = 67_108_864,
        overflow: _Overflow = "block",
        ack: _Ack = "auto",
        no_local: bool = False,
        retain_as_published: bool = False,
        retain_handling: _RetainHandling = "send",
        user_properties: _UserProperties | None = None,
    ) -> SyncSubscription[Message]:
        """Subscribe, and wait for SUBACK. As `Client.subscribe`."""

    def unsubscribe(self, *filters: str) -> None:
        """Unsubscribe from filters of a resumed session, for which there is no subscription object."""

    def request(
        self,
        topic: str,
        payload: _Payload | object = None,
        *,
        qos: _QoS = 0,
        encode: _Encode | None = None,
        timeout: float = 10.0,
        content_type: str | None = None,
        message_expiry: float | None = None,
        user_properties: _UserProperties | None = None,
        payload_format: Literal[0, 1] | None = None,
    ) -> Message:
        """Send a request and wait for its answer (MQTT 5)."""

    def serve(
        self, *filters: str | Iterable[str], qos: _QoS = 1, maxsize: int = 65_536, max_bytes: int = 67_108_864
    ) -> SyncSubscription[SyncRequest]:
        """Take requests, to be answered with `SyncRequest.respond`. As `Client.serve`."""

    def events(self) -> SyncStream[_Event]:
        """What happens to the connection from now on, or to the next one if there is none."""

    @property
    def client_id(self) -> str:
        """The client identifier in use."""

    @property
    def spooled(self) -> int:
        """Publications with QoS 1 and 2 in the spool, those of earlier processes included; 0 without one."""

    @property
    def connected(self) -> bool:
        """Whether there is a connection now."""

    @property
    def session_present(self) -> bool | None:
        """Whether the server had kept the session when this client connected last; `None` if it is not connected."""

    @property
    def state(self) -> _State:
        """Whether there is a connection, or one is sought."""

    def _repr_html_(self) -> str: ...
    def stats(self) -> dict[str, int]:
        """Counters: messages, connections, bytes."""

@final
class SyncSubscription(Generic[_T]):
    """Messages of some filters, for one thread at a time. Iterating waits for messages, for ever."""

    def __class_getitem__(cls, item: Any, /) -> GenericAlias: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None: ...
    def arrow(
        self,
        max: int = 65_536,
        within: float = 0.5,
        *,
        decode: _Decode | None = None,
        schema: _Schema | None = None,
        on_error: Literal["null", "raise", "raw"] = "null",
    ) -> Iterator[RecordBatch]:
        """Iterate over batches of columns, given out when they have `max` messages, or `within` seconds of the first.

        Columns and arguments are those of `ferromq.collect`. Types that were learnt stay: a batch has at least the
        columns of the one before. `max` is to be no more than `maxsize` of the subscription.
        """

    def __iter__(self) -> Self: ...
    def __next__(self) -> _T: ...
    def get(self, timeout: float | None = None) -> _T:
        """The next message.

        Args:
            timeout: How long to wait; 0 does not, `None` does for ever.

        Raises:
            Timeout: None came.
            Closed: None will come.
        """

    def take(self, count: int, seconds: float | None = None) -> Iterator[_T]:
        """Iterate over the next `count` messages, or over what comes in `seconds`."""

    def batch(self, max: int = 1000, within: float = 0.1) -> list[_T]:
        """Up to `max` messages; what came `within` so many seconds, perhaps nothing."""

    def unsubscribe(self) -> None:
        """End it; what waits is dropped."""

    @property
    def filters(self) -> list[str]:
        """The filters, with plain wildcards."""

    @property
    def granted(self) -> list[int]:
        """Granted QoS, or the reason code of a refusal, for each filter."""

    @property
    def pending(self) -> int:
        """Messages that wait: up to `maxsize` in the queue, and as many, but 256 at most, on their way out of it."""

    @property
    def lag(self) -> float:
        """How long the oldest message that waits has waited, seconds; 0 if none does."""

    @property
    def dropped(self) -> int:
        """Messages that `overflow` has dropped, and those of `serve` that were no requests."""

@final
class SyncStream(Generic[_T]):
    """A blocking iterator."""

    def __class_getitem__(cls, item: Any, /) -> GenericAlias: ...
    def __iter__(self) -> Self: ...
    def __next__(self) -> _T: ...
    def get(self, timeout: float | None = None) -> _T:
        """The next item.

        Raises:
            Timeout: None came in time.
            Closed: None will come.
        """

# --- broker ----------------------------------------------------------------------------------------------------------

@disjoint_base
class Broker:
    """An MQTT broker inside this process, for 3.1, 3.1.1 and 5.0.

        async with ferromq.Broker() as broker:      # or `with`
            print(broker.url)                       # mqtt://127.0.0.1:40123

    It runs on threads of its own and serves any MQTT client. Starting takes about a millisecond.

    Args:
        listeners: URLs to listen on, and `Tls`: `tcp://host:port`, `ws://host:port/path`, `unix:///path`; port 0 is any
            that is free. Default `tcp://127.0.0.1:0`. An empty list leaves `Client(broker)` as the only way in.
        config: Path of a TOML file (`ferromq broker --check` shows all keys), or a dictionary of the same shape.
            The arguments below win over it.
        users: Names and passwords; whoever is not among them is refused.
        allow_anonymous: Whether clients may come without a user name. Default: unless there are `users`.
        acl: Who may publish and subscribe to what: a list of rules, of which the first that fits decides, as
            `[{"permission": "allow", "users": ["dev"], "filters": ["dev/%c/#"]}]`, or the table `[acl]`. What no rule
            is about is refused. Default: everybody everything.
        store: Directory that keeps persistent sessions, their messages and retained messages over a restart: nothing is
            acknowledged before it is on the disk. `None`: all of it is in memory and goes with the broker.
        shards: Threads that share the clients; 0 is one for each core. Default 1.
        seed: Seeds what is random, for tests.
        drain_timeout: How long stopping waits for what is unsent.
        limits: Table `[limits]`, as `{"max_inflight": 100}`.
        capabilities: Table `[capabilities]`, as `{"maximum_packet_size": "256 KiB"}`.
        queue: Table `[queue]`.
        slow_consumer: Table `[slow_consumer]`.
        shared: Table `[shared]`.
        sys: Table `[sys]`.
        faults: Whether faults can be made to happen, with `faults`. All connections then go through a task that can
            lose, delay and break what they carry; it costs speed, so it is for tests.
        trace: Packets of each connection to remember for `trace()`, at most 4096. The cost is the same.
        like: Behave like a weaker broker: `"aws-iot-core"`, `"azure-event-grid"`, `"minimal"` or `"impatient"`. What
            each allows is in docs/faults.md; all other arguments, and `config`, win over it.
        clock: Of another broker, `other.clock`, for tests: both then live by one time. By default it has its own.

    Raises:
        InvalidArgument: A setting is not known or cannot be.
        ConnectError: When started: it cannot listen there.
        StorageError: When started: the store cannot be used.
    """

    def __new__(
        cls,
        *,
        listeners: Sequence[str | Tls] | None = None,
        config: str | PathLike[str] | dict[str, Any] | None = None,
        users: dict[str, str | bytes] | None = None,
        allow_anonymous: bool | None = None,
        acl: Sequence[dict[str, Any]] | dict[str, Any] | None = None,
        store: str | PathLike[str] | None = None,
        shards: int | None = None,
        seed: int | None = None,
        drain_timeout: float = 5.0,
        limits: dict[str, Any] | None = None,
        capabilities: dict[str, Any] | None = None,
        queue: dict[str, Any] | None = None,
        slow_consumer: dict[str, Any] | None = None,
        shared: dict[str, Any] | None = None,
        sys: dict[str, Any] | None = None,
        faults: bool = False,
        trace: int = 0,
        like: Literal["aws-iot-core", "azure-event-grid", "minimal", "impatient"] | None = None,
        clock: Clock | None = None,
    ) -> Self: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None: ...
    def __aenter__(self) -> Operation[Self]: ...
    def __aexit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> Operation[None]: ...
    def start(self) -> Self:
        """Start; `with` and `async with` do it, too. A stopped broker may be started again, with what its store has."""

    def stop(self) -> None:
        """Publish wills, tell the clients, send what is unsent, and stop."""

    @property
    def certificate(self) -> str | None:
        """Certificate of the first listener with TLS, PEM; what `ClientTls(ca=...)` takes if it was made by `Tls`."""

    @property
    def running(self) -> bool:
        """Whether it runs."""

    @property
    def url(self) -> str:
        """Where clients connect to: the first TCP listener without TLS, or else the first.

        Raises:
            Closed: It does not run, or has no listeners.
        """

    @property
    def urls(self) -> list[str]:
        """All of them."""

    @property
    def port(self) -> int:
        """Port of the first listener that has one."""

    @property
    def clock(self) -> Clock:
        """The time that it and its clients in this process live by."""

    @property
    def faults(self) -> Faults:
        """What can be made to go wrong.

        Raises:
            InvalidArgument: It was made without `faults=True`.
        """

    def trace(self, client: str | None = None) -> list[ConnectionTrace]:
        """The last packets of each connection, of those that have ended, too; the newest connection last.

        Args:
            client: Only of this client.

        Raises:
            InvalidArgument: It was made without `trace`.
        """

    def publish(
        self,
        topic: str,
        payload: _Payload | object = None,
        *,
        qos: _QoS = 0,
        retain: bool = False,
        encode: _Encode | None = None,
        message_expiry: float | None = None,
        content_type: str | None = None,
        response_topic: str | None = None,
        correlation_data: _Payload = None,
        user_properties: _UserProperties | None = None,
        payload_format: Literal[0, 1] | None = None,
    ) -> None:
        """Publish to all who want it, without a client. Arguments are those of `Client.publish`.

        Raises:
            QueueFull: Too many messages of this process wait already.
        """

    @property
    def clients(self) -> list[ClientInfo]:
        """Clients that are connected or have a session, as of now."""

    def kick(self, client_id: str, reason_code: int = 0x98) -> bool:
        """End the connection of a client; whether there was one.

        A client that reconnects by itself is back within milliseconds. 0x87 (not authorized) and 0x8E (session taken
        over) keep clients of FerroMQ away; what others do is up to them.

        Args:
            client_id: Client identifier.
            reason_code: What to tell the client (MQTT 5), from 0x80. Default 0x98, administrative action.

        Raises:
            InvalidArgument: No such reason code, or not one of DISCONNECT.
        """

    @property
    def retained(self) -> RetainedMessages:
        """The retained messages."""

    def _repr_html_(self) -> str: ...
    def stats(self) -> dict[str, Any]:
        """Counters; `dropped` and `ended` count messages and connections by reason."""

    def settled(self, timeout: float | None = None) -> Operation[None]:
        """Wait until every message that has reached the broker is delivered, and acknowledged, to whoever is connected.

        Raises:
            Timeout: It took longer.
        """

    def wait_settled(self, timeout: float | None = None) -> None:
        """The same, blocking."""

    def tap(
        self,
        *filters: str | Iterable[str],
        maxsize: int = 65_536,
        overflow: _Overflow = "drop_oldest",
    ) -> Subscription[Message]:
        """See traffic without a client of your own; as `Client.subscribe` gives it, retained messages left out.

        It is no client: it needs neither credentials nor permission, is not counted, and faults do not strike it.
        """

    def on_auth(self, hook: _F) -> _F:
        """Decorator: have a function decide who may connect. Install it before the broker is started.

        It is called on a thread of its own, so it may block, with a `ConnectInfo`; it returns whether to let the client
        in, or the reason code of a refusal. If there are `users`, it is asked only for those. If it raises, the client
        is refused with 0x83 and the exception goes to `sys.unraisablehook`.

        Raises:
            TypeError: It is no function, or an async one.
            RuntimeError: The broker runs already.
        """

    def on_acl(self, hook: _F) -> _F:
        """Decorator: have a function decide what clients may do. Install it before the broker is started.

        It is called with a `ConnectInfo`, `"publish"` or `"subscribe"`, and the topic name or filter, as `on_auth`
        is; the client waits meanwhile, and others do not. False refuses with 0x87, and so does an exception. A
        topic that a client may publish to is remembered for its connection, and a will is asked about when its
        client connects. What `acl` refuses is not asked.

        Raises:
            TypeError: It is no function, or an async one.
            RuntimeError: The broker runs already.
        """

    def on_publish(self, hook: _F) -> _F:
        """Decorator: have a function see, and perhaps refuse, every message that clients publish.

        It is called with a `ConnectInfo` and a `Message` before anybody has the message; False refuses it with
        0x87. The publisher waits for each answer: fine in tests, slow in a fleet.

        Raises:
            TypeError: It is no function, or an async one.
            RuntimeError: The broker runs already.
        """

    def on_connect(self, hook: _F) -> _F:
        """Decorator: have a function told of each client that is let in.

        It is called with a `ConnectInfo` and whether a session was resumed. This, and what follows, is told on a
        thread of its own, in the order of events; the broker does not wait. Up to 65,536 events wait for their
        turn, more are not told. What was told before `stop` is done when that returns.

        Raises:
            TypeError: It is no function, or an async one.
            RuntimeError: The broker runs already.
        """

    def on_disconnect(self, hook: _F) -> _F:
        """Decorator: have a function told of each connection that ends: client identifier and the reason's name.

        Raises:
            TypeError: It is no function, or an async one.
            RuntimeError: The broker runs already.
        """

    def on_subscribe(self, hook: _F) -> _F:
        """Decorator: have a function told of each subscription: client identifier, filter and QoS.

        Raises:
            TypeError: It is no function, or an async one.
            RuntimeError: The broker runs already.
        """

    def on_unsubscribe(self, hook: _F) -> _F:
        """Decorator: have a function told of each subscription that ends: client identifier and filter.

        Raises:
            TypeError: It is no function, or an async one.
            RuntimeError: The broker runs already.
        """

    def on_drop(self, hook: _F) -> _F:
        """Decorator: have a function told of each message that is dropped: client identifier, topic, the reason's name.

        The client is the subscriber that misses it, or the publisher from whom it was not accepted.

        Raises:
            TypeError: It is no function, or an async one.
            RuntimeError: The broker runs already.
        """

# --- clock and faults ---
@final
class Clock:
    """The time that a broker and clients of this process live by: the system's, and what it was advanced.

        broker.clock.advance("8h")

    Every `Broker` has one, `Client(broker)` shares it, and a client with a URL can: `Client(broker.url,
    clock=broker.clock)`. Keep-alive, will delay, session and message expiry, time-outs, back-off and the delays of
    faults go by it. Clients of other processes and libraries go by their own: when hours pass in a moment, the broker
    does not hear from them for hours.
    """

    def __new__(cls) -> Self: ...
    def advance(self, duration: _Span) -> None:
        """Let time pass, with all that happens in it, in its order; returns when it has.

        It goes from one instant at which something is due to the next, and waits at each until the broker and the
        clients that live by this clock are at rest. It blocks, but never for the time that passes, and works inside a
        coroutine, too: nothing that happens meanwhile needs the event loop. What your own code does when it hears of
        it, it does afterwards.

        Args:
            duration: Seconds, a text as `"8h"`, `"90 min"`, `"30s"` or `"250ms"`, or a `timedelta`.

        Raises:
            InvalidArgument: That is no time, or a negative one.
        """

    @property
    def now(self) -> float:
        """What it shows: as `time.time()`, and ahead of it by `offset`."""

    @property
    def offset(self) -> float:
        """Seconds that it was advanced by, in all."""

@final
class Faults:
    """What can go wrong between clients and a broker: loss, delay, repetition, disorder, damage, ends and lies.

        with broker.faults.drop("PUBACK", nth=1) as rule:
            ...
        assert rule.hits == 1

    Each verb makes a rule; several rules strike one packet in the order in which they were made. A rule goes on until
    it is removed, its `with` block is left, or its `nth`, `count` or `for_` is over.

    Selectors, the same for all verbs, each optional:

    * `packet`: `"PUBLISH"`, `"PUBACK"`, ..., or several of them.
    * `client`: client identifier.
    * `topic`: topic filter. It selects messages, their acknowledgements, and subscriptions by any of their filters.
    * `direction`: `"to_broker"` or `"to_client"`.
    * `nth`: only the n-th packet that matches, the first being 1.
    * `count`: at most so many.
    * `for_`: for so long, by `clock`.
    * `probability`: each only with this chance. What is random is decided by the `seed` of the broker or proxy.

    WebSocket connections are not looked into: rules that select neither packet, client nor topic strike the pieces in
    which their bytes come.
    """

    @property
    def clock(self) -> Clock:
        """The clock that delays and `for_` go by."""

    @property
    def rules(self) -> list[FaultRule]:
        """The rules that can still strike."""

    @property
    def held(self) -> int:
        """Packets that are held back, or on their way. While there are any, `Broker.settled` waits."""

    def drop(
        self,
        packet: _Packet | Iterable[_Packet] | None = None,
        *,
        client: str | None = None,
        topic: str | None = None,
        direction: _Direction | None = None,
        nth: int | None = None,
        count: int | None = None,
        for_: _Span | None = None,
        probability: float = 1.0,
    ) -> FaultRule:
        """Have packets vanish."""

    def delay(
        self,
        packet: _Packet | Iterable[_Packet] | None = None,
        *,
        by: _Span,
        jitter: _Span = 0.0,
        client: str | None = None,
        topic: str | None = None,
        direction: _Direction | None = None,
        nth: int | None = None,
        count: int | None = None,
        for_: _Span | None = None,
        probability: float = 1.0,
    ) -> FaultRule:
        """Have packets come later: `by` so much, and at random up to `jitter` more.

        The order is kept: what is behind them comes later, too.
        """

    def duplicate(
        self,
        packet: _Packet | Iterable[_Packet] | None = None,
        *,
        copies: int = 1,
        client: str | None = None,
        topic: str | None = None,
        direction: _Direction | None = None,
        nth: int | None = None,
        count: int | None = None,
        for_: _Span | None = None,
        probability: float = 1.0,
    ) -> FaultRule:
        """Have packets come again, `copies` times. Copies of a PUBLISH above QoS 0 are marked as sent again."""

    def reorder(
        self,
        packet: _Packet | Iterable[_Packet] | None = None,
        *,
        by: int = 1,
        within: _Span = 1.0,
        client: str | None = None,
        topic: str | None = None,
        direction: _Direction | None = None,
        nth: int | None = None,
        count: int | None = None,
        for_: _Span | None = None,
        probability: float = 1.0,
    ) -> FaultRule:
        """Have packets be overtaken `by` so many others of their direction; `within` this time, whoever comes."""

    def corrupt(
        self,
        packet: _Packet | Iterable[_Packet] | None = None,
        *,
        bits: int = 1,
        client: str | None = None,
        topic: str | None = None,
        direction: _Direction | None = None,
        nth: int | None = None,
        count: int | None = None,
        for_: _Span | None = None,
        probability: float = 1.0,
    ) -> FaultRule:
        """Have so many `bits` of packets turned, behind their fixed header."""

    def cut(
        self,
        packet: _Packet | Iterable[_Packet] | None = None,
        *,
        after: int = 0,
        client: str | None = None,
        topic: str | None = None,
        direction: _Direction | None = None,
        nth: int | None = None,
        count: int | None = None,
        for_: _Span | None = None,
        probability: float = 1.0,
    ) -> FaultRule:
        """Have connections closed in the middle: when `after` bytes of the packets selected have passed on each."""

    def fake_reason(
        self,
        packet: _Packet,
        reason: int,
        *,
        client: str | None = None,
        topic: str | None = None,
        direction: _Direction | None = None,
        nth: int | None = None,
        count: int | None = None,
        for_: _Span | None = None,
        probability: float = 1.0,
    ) -> FaultRule:
        """Have packets say another reason code than they do. The sender knows nothing of it.

        It must be one that this packet can have. Before MQTT 5 only CONNACK and SUBACK have one; other packets are not
        struck.
        """

    def throttle(
        self,
        bytes_per_second: float,
        *,
        packet: _Packet | Iterable[_Packet] | None = None,
        client: str | None = None,
        topic: str | None = None,
        direction: _Direction | None = None,
        for_: _Span | None = None,
    ) -> FaultRule:
        """Limit the rate, for each connection and direction."""

    def half_open(self, client: str | None = None) -> FaultRule:
        """Have the connections that exist now go dead: nothing passes any more, not even their end, and nobody is told.

        New ones are not affected. `hits` of the rule is how many there were; to remove it resets them.
        """

    def partition(self, client: str | None = None, *, for_: _Span | None = None) -> FaultRule:
        """Have nothing pass, either way, on old connections and new ones.

        When the rule ends, what was on its way passes.
        """

    def refuse(
        self,
        *,
        client: str | None = None,
        reason: int | None = None,
        for_: _Span | None = None,
        count: int | None = None,
    ) -> FaultRule:
        """Refuse new connections: reset them, or answer CONNECT with a reason.

        Args:
            client: Only of this client, which is known with CONNECT.
            reason: Reason code from 0x80 that CONNACK can have.
            for_: For so long.
            count: At most so many.
        """

    def drop_connections(self, client: str | None = None) -> int:
        """Reset connections, as a network does that fails; how many."""

    def kick(self, client_id: str, reason_code: int = 0x98) -> bool:
        """End the connection of a client with a reason; whether there was one.

        A broker does so itself, as with `Broker.kick`. A proxy says DISCONNECT in its place.
        """

    def clear(self) -> None:
        """Remove all rules."""

@final
class FaultRule:
    """A fault that is made to happen. As a context manager it ends with the block."""

    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None: ...
    @property
    def kind(self) -> str:
        """What it does, as the verb that made it is named."""

    @property
    def hits(self) -> int:
        """Packets, or connections, that it has struck."""

    def struck(self, count: int = 1, timeout: float | None = None) -> Operation[None]:
        """Wait until it has struck `count` times: what it struck is gone by then.

        Args:
            count: How often.
            timeout: How long to wait, seconds; `None` is for ever.

        Raises:
            Timeout: It has not.
            Closed: The rule was removed, or its broker or proxy has stopped.
            InvalidArgument: It strikes less often, by its `nth` or `count`.
        """

    def wait_struck(self, count: int = 1, timeout: float | None = None) -> None:
        """The same, blocking."""

    @property
    def active(self) -> bool:
        """Whether it can still strike."""

    def remove(self) -> None:
        """End it. A partition is healed; what is delayed stays delayed."""

@final
class ConnectionTrace:
    """The last packets of one connection. `str()` of it is ready for a report."""

    @property
    def client_id(self) -> str:
        """Client identifier; empty before CONNECT."""

    @property
    def address(self) -> str:
        """Address of the peer, as `"127.0.0.1:40123"`, `"unix"` or `"memory"`."""

    @property
    def open(self) -> bool:
        """Whether it is still connected."""

    @property
    def lines(self) -> list[str]:
        """One line for each packet.

        Seconds since the connection was made, `>` to the broker or `<` to the client, the packet, and what faults did
        to it.
        """

@disjoint_base
class FaultProxy:
    """A proxy in front of any broker, with faults.

        with ferromq.FaultProxy("mqtt://localhost:1883") as proxy:
            proxy.faults.drop("PUBACK", nth=1)
            ...  # clients connect to proxy.url

    Args:
        upstream: The broker: `mqtt://host:port` or `unix:///path`. `ws://host:port/path` works, too, with faults that
            do not look into packets.
        listen: Where clients connect: `tcp://host:port`; port 0 is any that is free.
        trace: Packets of each connection to remember, at most 4096.
        seed: Decides what is random.
        clock: What delays go by; by default one of its own.
        tls: Whom to believe if the broker is at `mqtts://` or `wss://`. Clients speak no TLS to the proxy.

    Raises:
        InvalidArgument: A URL is not one.
        ConnectError: When started: it cannot listen there.
    """

    def __new__(
        cls,
        upstream: str,
        *,
        listen: str = "tcp://127.0.0.1:0",
        trace: int = 32,
        seed: int | None = None,
        clock: Clock | None = None,
        tls: ClientTls | None = None,
    ) -> Self: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None: ...
    def __aenter__(self) -> Operation[Self]: ...
    def __aexit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> Operation[None]: ...
    def start(self) -> Self:
        """Start to listen; `with` and `async with` do it, too."""

    def stop(self) -> None:
        """Listen no more, and reset all connections."""

    @property
    def url(self) -> str:
        """Where clients connect.

        Raises:
            Closed: It does not run.
        """

    @property
    def clock(self) -> Clock:
        """What delays go by."""

    @property
    def faults(self) -> Faults:
        """What can be made to go wrong."""

    def trace(self, client: str | None = None) -> list[ConnectionTrace]:
        """The last packets of each connection, of those that have ended, too; the newest connection last."""

# --- end of clock and faults ---

@final
class ClientInfo:
    """A client as its broker sees it."""

    @property
    def client_id(self) -> str:
        """Client identifier."""

    @property
    def username(self) -> str | None:
        """User name, if any."""

    @property
    def connected(self) -> bool:
        """Whether it is connected, or has only a session."""

    @property
    def version(self) -> str:
        """Version of MQTT, as `"5.0"`."""

    @property
    def address(self) -> str | None:
        """Address of the peer, if connected."""

    @property
    def subscriptions(self) -> int:
        """How many subscriptions it has."""

    @property
    def queued(self) -> int:
        """Messages that wait for it."""

    @property
    def inflight(self) -> int:
        """Messages that it has not acknowledged."""

    def as_dict(self) -> dict[str, Any]:
        """All of that by name, for a frame: `polars.DataFrame([info.as_dict() for info in broker.clients])`."""

@final
class ConnectInfo:
    """A client that asks to connect."""

    @property
    def client_id(self) -> str:
        """Client identifier."""

    @property
    def username(self) -> str | None:
        """User name, if any."""

    @property
    def password(self) -> bytes | None:
        """Password, if any."""

    @property
    def version(self) -> str:
        """Version of MQTT, as `"5.0"`."""

    @property
    def address(self) -> str:
        """Address of the peer."""

    @property
    def listener(self) -> str:
        """Listener it came in by."""

@final
class RetainedMessages:
    """The retained messages of a running broker: topics and payloads, looked up when asked."""

    def __getitem__(self, filter: str, /) -> dict[str, bytes]:
        """Those that match a topic filter.

        Raises:
            InvalidTopic: The filter is not valid.
        """

    @overload
    def get(self, topic: str, default: None = None) -> bytes | None: ...
    @overload
    def get(self, topic: str, default: _D) -> bytes | _D:
        """The payload of one topic."""

    def __contains__(self, topic: str, /) -> bool: ...
    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[str]: ...

# --- topics and the rest ---------------------------------------------------------------------------------------------

@final
class Table:
    """Messages as columns. pandas, polars, pyarrow and DuckDB take it as it is, without a copy.

        temps = ferromq.collect("mqtt://localhost", "plant/{line}/temp", seconds=10, decode="json")
        polars.DataFrame(temps)
        pyarrow.table(temps)
        duckdb.sql("from temps")
        temps.to_pandas()

    Columns are `received_at`, `topic`, one for each named level, and the decoded fields or `payload`. Any object with
    `__arrow_c_stream__` can be made one: `Table(frame)`.
    """

    def __new__(cls, data: _ArrowStream, /) -> Self: ...
    @classmethod
    def concat(cls, parts: Sequence[_ArrowStream]) -> Table:
        """One table of several objects with `__arrow_c_stream__`: absent columns are null, and types are widened."""
    @property
    def schema(self) -> dict[str, str]:
        """Names of the columns, and their types in words."""

    @property
    def column_names(self) -> list[str]:
        """Names of the columns."""

    @property
    def nbytes(self) -> int:
        """Memory of the columns, bytes."""

    @property
    def errors(self) -> int:
        """Messages that could not be decoded, or had a value that is not of the given type."""

    @property
    def first_error(self) -> str | None:
        """What was wrong with the first of them."""

    def batches(self) -> list[RecordBatch]:
        """The rows in batches, as they came."""

    def series(self, points: int = 500) -> tuple[list[dict[str, Any]], str]:
        """The last values of the topics with most rows, for a chart, and a line that sums up the table.

        Each topic is a dictionary of `topic` and `points`: milliseconds and value, of which there are `points` at most.
        """

    def to_arrow(self) -> Any:
        """A `pyarrow.Table` of the same memory."""

    def to_polars(self) -> Any:
        """A `polars.DataFrame`."""

    def to_pandas(self) -> Any:
        """A `pandas.DataFrame`."""

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object: ...
    def __arrow_c_schema__(self) -> object: ...
    def __len__(self) -> int: ...
    def _repr_html_(self) -> str: ...

@final
class RecordBatch:
    """Some rows of a table."""

    @property
    def schema(self) -> dict[str, str]:
        """Names of the columns, and their types in words."""

    @property
    def nbytes(self) -> int:
        """Memory of the columns, bytes."""

    def to_arrow(self) -> Any:
        """A `pyarrow.RecordBatch` of the same memory."""

    def to_polars(self) -> Any:
        """A `polars.DataFrame`."""

    def to_pandas(self) -> Any:
        """A `pandas.DataFrame`."""

    def __arrow_c_array__(self, requested_schema: object | None = None) -> tuple[object, object]: ...
    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object: ...
    def __arrow_c_schema__(self) -> object: ...
    def __len__(self) -> int: ...

@final
class Capture:
    """A subscription that is decoded in the background into a table in memory, or into Parquet files.

    `collect`, `live` and `record` are made of it. Nothing of it needs Python while it runs.

    Args:
        client: A connected `Client` or `SyncClient`.
        filters: Topic filters; each `{name}` is a column.
        decode: `"json"`, `"cbor"`, `"msgpack"`, `"number"`, `"text"`, `"sparkplug"`, the format of a packed struct such
            as `"<ffI"`, or that and names: `("<ffI", ["x", "y", "n"])`. `None`: the column `payload`.
        schema: Names and types of the fields; others are left out. `None`: types are learnt, and widen as need be.
        on_error: What becomes of a payload that cannot be decoded: `"null"`, `"raise"`, or `"raw"`: it is kept in the
            column `raw`.
        rows: End after so many.
        max_bytes: Memory at most; at this the capture ends, or, with `keep` or `keep_rows`, the oldest rows go.
        keep: Seconds after which rows go.
        keep_rows: Rows at most; of more the oldest go.
        path: A Parquet file to write instead of keeping rows.
        rotate: Seconds after which another file is begun.
        rotate_bytes: Size at which another file is begun.
        compression: Level of zstd; 0 is none.
        overwrite: Replace a file that is there.
        qos: Quality of service to subscribe with.
        retained: Also take what is retained.

    Raises:
        InvalidArgument: An argument cannot be, or the file is there already.
        Refused: The server refused the subscription.
    """

    def __new__(
        cls,
        client: Client | SyncClient,
        *filters: str | Iterable[str],
        decode: _Decode | None = None,
        schema: _Schema | None = None,
        on_error: Literal["null", "raise", "raw"] = "null",
        rows: int | None = None,
        max_bytes: int = ...,
        keep: float | None = None,
        keep_rows: int | None = None,
        path: str | PathLike[str] | None = None,
        rotate: float | None = None,
        rotate_bytes: int | None = None,
        compression: int = 3,
        overwrite: bool = False,
        qos: Literal[0, 1, 2] = 0,
        retained: bool = True,
    ) -> Self: ...
    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it has ended, or so many seconds; whether it has.

        Raises:
            DecodeError: A payload could not be decoded, and `on_error` is `"raise"`.
            FerroMQError: The subscription ended, or a file could not be written.
        """

    def stop(self) -> None:
        """End it. What came before is in the table, or in files that are complete.

        Raises:
            DecodeError: A payload could not be decoded, and `on_error` is `"raise"`.
            FerroMQError: The subscription had ended, or a file could not be written.
        """

    def table(self) -> Table:
        """The rows that are kept now. Columns are shared with what goes on, not copied."""

    @property
    def files(self) -> list[Path]:
        """Files that are complete."""

    @property
    def path(self) -> Path | None:
        """The file it was told to write."""

    @property
    def progress(self) -> dict[str, Any]:
        """How far it is, in numbers.

        `messages`, `rows`, `bytes` of payload, `errors`, `first_error`, `rest` (values that found no column),
        `file_bytes`, `pending` and `dropped` messages, `forgotten` rows, `lag` (age of the last message when it was
        decoded, seconds), `done`, and `full`.
        """

@final
class Replay:
    """Recorded messages, published again in their order; `ferromq.replay` is made of it.

    Args:
        client: A connected `Client` or `SyncClient`.
        paths: Parquet files as `record` writes them, in any order.
        speed: How many times as fast as it was. `None`: as fast as the server takes it.
        where: Which rows, as SQL says it: `"line = 'L1' and value > 20"`.
        map: Gives the topic to publish to for each topic; `None` leaves its messages out. It is asked once for each.
        qos: Quality of service of the publications. `None`: that they came with, as far as the files tell, else 0.
        retain: Whether to publish them as retained messages. `None`: those that were.

    Raises:
        OSError: A file cannot be read.
        InvalidArgument: It is no recording, or an argument cannot be.
    """

    def __new__(
        cls,
        client: Client | SyncClient,
        paths: Sequence[str | PathLike[str]],
        *,
        speed: float | None = 1.0,
        where: str | None = None,
        map: Callable[[str], str | None] | None = None,
        qos: Literal[0, 1, 2] | None = None,
        retain: bool | None = None,
    ) -> Self: ...
    @property
    def rows(self) -> int:
        """Rows of all files, before `where`."""

    def step(self, seconds: float = 0.1) -> Operation[int | None]:
        """Publish what is due within so many seconds; how many rows were dealt with, `None` at the end."""

    def step_blocking(self, seconds: float = 0.1) -> int | None:
        """The same, on this thread."""

def read_parquet(
    paths: Sequence[str | PathLike[str]],
    *,
    where: str | None = None,
    decode: _Decode | None = None,
    names: Sequence[str] | None = None,
    schema: _Schema | None = None,
    on_error: Literal["null", "raise", "raw"] = "null",
    progress: Callable[[int, int], object] | None = None,
) -> Table:
    """Parquet files as one table: columns that a file does not have are null, and types are widened.

    Args:
        paths: The files.
        where: Which rows, as SQL says it: `"line = 'L1' and value > 20"`.
        decode: Decode the column `payload` of what was recorded without; as in `Capture`.
        names: The filters with names of levels, for columns of them.
        schema: As in `Capture`.
        on_error: As in `Capture`.
        progress: Is called with the rows that were looked at and all that there are, now and then.

    Raises:
        OSError: A file cannot be read.
        InvalidArgument: It is no Parquet file, or `where` names a column that is not there.
    """

def topic_matches(filter: str, topic: str) -> bool:
    """Whether a topic matches a filter, which may be a shared one and may have named levels.

    Raises:
        InvalidTopic: One of them is not valid.
    """

def parse_pattern(pattern: str) -> tuple[str, dict[str, int]]:
    """The plain filter of a filter with named levels, and the level of each name, counted from 0.

    `"plant/{line}/temp"` gives `("plant/+/temp", {"line": 1})`.

    Raises:
        InvalidTopic: It is not valid.
    """

def validate_topic(topic: str) -> None:
    """Raise `InvalidTopic` unless this is a valid topic name."""

def validate_filter(filter: str) -> None:
    """Raise `InvalidTopic` unless this is a valid topic filter."""

def cli_main(arguments: Sequence[str | PathLike[str]]) -> int:
    """Run the `ferromq` command; the first argument is its name. Its exit code."""
