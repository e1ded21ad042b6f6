//! The one table from failures to Python exceptions.
//!
//! The classes are made by calling `type`, because a class of the stable ABI of 3.11 cannot extend an exception. What
//! an exception carries are attributes with defaults on the class, so they are there whoever raises it.

use std::{borrow::Cow, ffi::CString};

use pyo3::{
    exceptions::{
        PyConnectionError, PyException, PyOSError, PyRuntimeError, PyRuntimeWarning, PyTimeoutError, PyValueError,
    },
    prelude::*,
    sync::PyOnceLock,
    types::{PyDict, PyString, PyTuple, PyType},
};

use crate::{
    client::{CloseReason, Error, RequestError},
    codec::{PacketType, Properties, ReasonCode, Text},
};

/// One exception class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    FerroMQError,
    ConnectError,
    ConnectionLost,
    Refused,
    NotAuthorized,
    ProtocolError,
    QueueFull,
    Timeout,
    Closed,
    InvalidArgument,
    InvalidTopic,
    DecodeError,
    Forked,
    StorageError,
}

/// The table: class, FerroMQ's base, the builtin it is as well, documentation.
const TABLE: &[(Kind, &str, Option<Kind>, Builtin, &str)] = &[
    (Kind::FerroMQError, "FerroMQError", None, Builtin::Exception, "Base of all exceptions of FerroMQ."),
    (
        Kind::ConnectError,
        "ConnectError",
        Some(Kind::FerroMQError),
        Builtin::Connection,
        "No connection could be made: look-up, network or transport failed.",
    ),
    (
        Kind::ConnectionLost,
        "ConnectionLost",
        Some(Kind::FerroMQError),
        Builtin::Connection,
        "The connection ended, or is not there.",
    ),
    (
        Kind::Refused,
        "Refused",
        Some(Kind::FerroMQError),
        Builtin::None,
        "The server refused a connection, publication or subscription.",
    ),
    (
        Kind::NotAuthorized,
        "NotAuthorized",
        Some(Kind::Refused),
        Builtin::None,
        "The server refused it for lack of credentials or permission.",
    ),
    (Kind::ProtocolError, "ProtocolError", Some(Kind::FerroMQError), Builtin::None, "The peer violated the protocol."),
    (
        Kind::QueueFull,
        "QueueFull",
        Some(Kind::FerroMQError),
        Builtin::None,
        "A bounded queue is full and its policy is not to wait.",
    ),
    (Kind::Timeout, "Timeout", Some(Kind::FerroMQError), Builtin::Timeout, "It took longer than allowed."),
    (
        Kind::Closed,
        "Closed",
        Some(Kind::FerroMQError),
        Builtin::None,
        "The client, broker or subscription is closed, or was never opened.",
    ),
    (
        Kind::InvalidArgument,
        "InvalidArgument",
        Some(Kind::FerroMQError),
        Builtin::Value,
        "A value that MQTT, or this server, has no way to carry.",
    ),
    (
        Kind::InvalidTopic,
        "InvalidTopic",
        Some(Kind::InvalidArgument),
        Builtin::None,
        "Not a valid topic name or topic filter.",
    ),
    (
        Kind::DecodeError,
        "DecodeError",
        Some(Kind::FerroMQError),
        Builtin::Value,
        "A payload is not what its decoder expects.",
    ),
    (
        Kind::Forked,
        "Forked",
        Some(Kind::FerroMQError),
        Builtin::Runtime,
        "Used in a forked child: the threads behind it stayed with the parent.",
    ),
    (
        Kind::StorageError,
        "StorageError",
        Some(Kind::FerroMQError),
        Builtin::Os,
        "A store or spool cannot be used: in use, damaged, somebody else's, or the disk is full.",
    ),
];

/// A builtin exception that a class is as well, so that general handlers find it.
#[derive(Debug, Clone, Copy)]
enum Builtin {
    None,
    Exception,
    Connection,
    Timeout,
    Value,
    Runtime,
    Os,
}

impl Builtin {
    fn class(self, py: Python<'_>) -> Option<Bound<'_, PyType>> {
        match self {
            Self::None => None,
            Self::Exception => Some(py.get_type::<PyException>()),
            Self::Connection => Some(py.get_type::<PyConnectionError>()),
            Self::Timeout => Some(py.get_type::<PyTimeoutError>()),
            Self::Value => Some(py.get_type::<PyValueError>()),
            Self::Runtime => Some(py.get_type::<PyRuntimeError>()),
            Self::Os => Some(py.get_type::<PyOSError>()),
        }
    }
}

/// Adds the classes to the module.
pub(crate) fn add_to(module: &Bound<'_, PyModule>) -> PyResult<()> {
    for ((_, name, ..), class) in TABLE.iter().zip(classes(module.py())?) {
        module.add(*name, class.bind(module.py()))?;
    }
    Ok(())
}

/// An exception of `kind` with `message` and nothing else.
pub(crate) fn new(py: Python<'_>, kind: Kind, message: &str) -> PyErr {
    Fault { kind, message, code: None, properties: None, packet: None, retryable: false }.raise(py)
}

/// Something is closed.
pub(crate) fn closed(py: Python<'_>, message: &str) -> PyErr {
    new(py, Kind::Closed, message)
}

/// A warning from where no exception can be raised: while an object goes. One that goes because of an exception has been
/// told of by that.
pub(crate) fn warn(py: Python<'_>, of: &str, message: &str) {
    let Ok(message) = CString::new(message) else { return };
    if PyErr::occurred(py) {
        return;
    }
    if let Err(error) = PyErr::warn(py, &py.get_type::<PyRuntimeWarning>(), &message, 1) {
        error.write_unraisable(py, Some(PyString::new(py, of).as_any()));
    }
}

/// Something was made before a fork.
pub(crate) fn forked(py: Python<'_>) -> PyErr {
    let message = "made before os.fork(): the threads behind it stayed with the parent process; make a new one in the \
                   child, or start children with the \"spawn\" method";
    new(py, Kind::Forked, message)
}

/// Something took longer than `seconds`.
pub(crate) fn timeout(py: Python<'_>, doing: &str, seconds: f64) -> PyErr {
    let message = format!("{doing} took longer than {seconds} s");
    Fault { kind: Kind::Timeout, message: &message, code: None, properties: None, packet: None, retryable: true }
        .raise(py)
}

/// A value that cannot be.
pub(crate) fn invalid(py: Python<'_>, message: &str) -> PyErr {
    new(py, Kind::InvalidArgument, message)
}

/// A failure of the client.
pub(crate) fn from_client(py: Python<'_>, error: &Error) -> PyErr {
    if let Error::Timeout { doing, after } = error {
        return timeout(py, doing, after.as_secs_f64());
    }
    Fault {
        kind: kind_of(error),
        message: &error.to_string(),
        code: error.reason_code(),
        properties: error.properties(),
        packet: error.packet_type(),
        retryable: error.retryable(),
    }
    .raise(py)
}

/// A publication that the server refused.
pub(crate) fn refused(py: Python<'_>, reason: ReasonCode, properties: &Properties) -> PyErr {
    let (what, properties) = ("the publication".to_owned(), properties.clone());
    from_client(py, &Error::Refused { packet: PacketType::Publish, what, reason, properties })
}

fn kind_of(error: &Error) -> Kind {
    match error {
        Error::Io { .. } => Kind::ConnectError,
        Error::ConnectionLost { .. } => Kind::ConnectionLost,
        Error::Connection { close, .. } => match &**close {
            CloseReason::Refused(connack) => kind_of_refusal(connack.reason),
            CloseReason::AuthenticationFailed(_) => Kind::NotAuthorized,
            CloseReason::Protocol { .. } | CloseReason::PacketTooLarge { .. } => Kind::ProtocolError,
            CloseReason::ConnAckTimeout => Kind::Timeout,
            CloseReason::Requested => Kind::Closed,
            _ => Kind::ConnectionLost,
        },
        Error::Refused { reason, .. } => kind_of_refusal(*reason),
        Error::Request(error) => kind_of_request(error),
        Error::Topic { .. } => Kind::InvalidTopic,
        Error::Timeout { .. } => Kind::Timeout,
        Error::Overflow { .. } => Kind::QueueFull,
        Error::Options(_) => Kind::InvalidArgument,
        Error::Spool(_) => Kind::StorageError,
        Error::Closed => Kind::Closed,
    }
}

fn kind_of_refusal(reason: ReasonCode) -> Kind {
    match reason {
        ReasonCode::BadUserNameOrPassword
        | ReasonCode::NotAuthorized
        | ReasonCode::Banned
        | ReasonCode::BadAuthenticationMethod => Kind::NotAuthorized,
        _ => Kind::Refused,
    }
}

fn kind_of_request(error: &RequestError) -> Kind {
    match error {
        RequestError::Topic(_) => Kind::InvalidTopic,
        RequestError::QueueFull { .. } | RequestError::Displaced | RequestError::TooManyRequests => Kind::QueueFull,
        RequestError::Offline | RequestError::SessionLost => Kind::ConnectionLost,
        RequestError::Expired => Kind::Timeout,
        RequestError::Closed => Kind::Closed,
        _ => Kind::InvalidArgument,
    }
}

/// What an exception is made of.
struct Fault<'a> {
    kind: Kind,
    message: &'a str,
    code: Option<ReasonCode>,
    properties: Option<&'a Properties>,
    packet: Option<PacketType>,
    retryable: bool,
}

impl Fault<'_> {
    fn raise(self, py: Python<'_>) -> PyErr {
        self.make(py).map_or_else(|error| error, PyErr::from_value)
    }

    fn make(self, py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
        let class = &classes(py)?[self.kind as usize];
        let exception = class.bind(py).call1((&*shortened(self.message),))?;
        if let Some(code) = self.code {
            exception.setattr("reason_code", code.as_u8())?;
        }
        if let Some(properties) = self.properties {
            exception.setattr("reason_string", properties.reason_string().map(Text::as_str))?;
            let pairs: Vec<_> =
                properties.user_properties().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            exception.setattr("user_properties", PyTuple::new(py, pairs)?)?;
        }
        if let Some(packet) = self.packet {
            exception.setattr("packet", format!("{packet:?}").to_ascii_uppercase())?;
        }
        if self.retryable {
            exception.setattr("retryable", true)?;
        }
        Ok(exception)
    }
}

/// The message without its middle, if it is one of those that quote a topic of up to 64 KiB.
fn shortened(message: &str) -> Cow<'_, str> {
    if message.len() <= MESSAGE_BYTES_MAX {
        return message.into();
    }
    let head = &message[..message.floor_char_boundary(MESSAGE_BYTES_MAX / 2)];
    let tail = &message[message.ceil_char_boundary(message.len() - MESSAGE_BYTES_MAX / 4)..];
    format!("{head} [... {} bytes ...] {tail}", message.len() - head.len() - tail.len()).into()
}

fn classes(py: Python<'_>) -> PyResult<&Vec<Py<PyType>>> {
    static CLASSES: PyOnceLock<Vec<Py<PyType>>> = PyOnceLock::new();
    CLASSES.get_or_try_init(py, || {
        let mut classes: Vec<Py<PyType>> = Vec::with_capacity(TABLE.len());
        for (_, name, base, builtin, doc) in TABLE {
            let base = base.and_then(|base| classes.get(base as usize)).map(|class| class.bind(py).clone());
            let bases = PyTuple::new(py, base.into_iter().chain(builtin.class(py)).collect::<Vec<_>>())?;
            classes.push(make_class(py, name, &bases, doc)?);
        }
        Ok(classes)
    })
}

fn make_class(py: Python<'_>, name: &str, bases: &Bound<'_, PyTuple>, doc: &str) -> PyResult<Py<PyType>> {
    let body = PyDict::new(py);
    body.set_item("__module__", "ferromq")?;
    body.set_item("__doc__", doc)?;
    if name == "FerroMQError" {
        body.set_item("reason_code", py.None())?;
        body.set_item("reason_string", py.None())?;
        body.set_item("user_properties", PyTuple::empty(py))?;
        body.set_item("packet", py.None())?;
        body.set_item("retryable", false)?;
    }
    Ok(py.get_type::<PyType>().call1((name, bases, body))?.cast_into::<PyType>()?.unbind())
}

/// Longer messages lose their middle.
const MESSAGE_BYTES_MAX: usize = 1024;
