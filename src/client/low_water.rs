//! The low-water mark of a TCP socket: how many bytes must have come before the system reports it as readable.
//!
//! It spares the wakes in between, which no timer of ours could: readiness is reported for each packet that comes,
//! whether anybody reads or not. Only Linux takes the mark for polling as it does for reading.

use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::{transport::Stream, websocket::WebSocket};

/// Has the socket below `stream` wait for so many bytes; 1 is as usual, and reports at once what has come. Whether it
/// could be done.
pub(super) fn set(stream: &dyn Stream, bytes: usize) -> bool {
    socket_of(stream).is_some_and(|socket| set_socket(socket, bytes))
}

fn socket_of(stream: &dyn Stream) -> Option<&TcpStream> {
    let any: &dyn std::any::Any = stream;
    if let Some(socket) = any.downcast_ref::<WebSocket>() {
        return socket_of(socket.stream());
    }
    let secure = || any.downcast_ref::<TlsStream<TcpStream>>().map(|stream| stream.get_ref().0);
    any.downcast_ref::<TcpStream>().or_else(secure)
}

#[cfg(target_os = "linux")]
#[allow(unsafe_code)] // the libraries that wrap socket options leave this one out
fn set_socket(socket: &TcpStream, bytes: usize) -> bool {
    use std::{ffi::c_int, os::fd::AsRawFd};

    let value = c_int::try_from(bytes).unwrap_or(c_int::MAX);
    // SAFETY: the descriptor is open for as long as `socket` is borrowed, and the option's value is an integer that
    // lives for the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_RCVLOWAT,
            (&raw const value).cast(),
            size_of::<c_int>() as libc::socklen_t,
        )
    };
    result == 0
}

#[cfg(not(target_os = "linux"))]
fn set_socket(_: &TcpStream, _: usize) -> bool {
    false
}
