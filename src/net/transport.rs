//! One connection's bytes in and out, whatever carries them: TCP, TLS, Unix socket or duplex, plain or in WebSocket frames.
//!
//! A transport at rest holds no buffer, but for TLS: a descriptor, and for WebSocket a few dozen bytes of state.

use std::{
    io::{self, IoSlice, IoSliceMut, Read, Write},
    net::Shutdown,
    ops::Range,
    sync::{Arc, Weak},
};

use mio::{
    Interest, Registry, Token,
    net::{TcpStream, UnixStream},
};

use crate::{
    broker::{ConnId, Outbox, Peer, TransportEnd},
    net::{
        duplex::DuplexEnd,
        interpose::{Interposer, Near},
        listener::Permit,
        shard::Shards,
        tls::{self, TlsStream},
        ws::{Closed, FRAME_BYTES_MAX, Handshake, Server, WsCodec, WsEgress, WsServer},
    },
};

/// A connection as a shard holds it.
#[derive(Debug)]
pub(crate) struct Transport {
    stream: Stream,
    ws: Option<Box<Ws>>,
    /// Counts against the listener's limit while it lives.
    _permit: Option<Permit>,
}

/// What carries the bytes.
#[derive(Debug)]
pub(crate) enum Stream {
    /// TCP.
    Tcp(TcpStream),
    /// TLS over TCP.
    Tls(Box<TlsStream>),
    /// Unix stream socket.
    Unix(UnixStream),
    /// In-process pipe.
    Duplex(DuplexEnd),
}

/// How far a WebSocket is.
#[derive(Debug)]
enum Ws {
    Upgrading(WsServer),
    Open(WsCodec<Server>, WsEgress),
}

/// What a read brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Got {
    /// Bytes; 0 is the end.
    pub(crate) len: usize,
    /// Reading on may bring more; after `false` there will be an event.
    pub(crate) more: bool,
}

/// What a write achieved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wrote {
    /// Bytes of the outbox.
    pub(crate) outbox: usize,
    /// The transport took less than it was given; there will be an event when it takes more.
    pub(crate) is_full: bool,
}

impl Transport {
    /// A fresh connection; with `ws_path` it has to be upgraded first.
    pub(crate) fn new(stream: Stream, ws_path: Option<Arc<str>>, permit: Option<Permit>) -> Self {
        let ws = ws_path.map(|path| Box::new(Ws::Upgrading(WsServer::new(path))));
        Self { stream, ws, _permit: permit }
    }

    /// Has `interposer` stand between it and the shard; `None` if that refuses it.
    pub(crate) fn interpose(mut self, interposer: Arc<dyn Interposer>, peer: &Peer) -> Option<Self> {
        let near = match self.stream {
            Stream::Tcp(stream) => Near::Tcp(stream.into()),
            Stream::Tls(stream) => {
                let (socket, tls) = stream.into_parts();
                Near::Tls(socket.into(), tls)
            }
            Stream::Unix(stream) => Near::Unix(stream.into()),
            Stream::Duplex(_) => return Some(self),
        };
        self.stream = Stream::Duplex(interposer.interpose(near, peer, self.ws.is_none())?);
        Some(self)
    }

    /// Has events arrive at `shard`. What a socket has by then is told anew; an in-process pipe tells only of what comes: try
    /// reading and writing it first.
    pub(crate) fn register(&mut self, at: &Place<'_>, conn: ConnId) -> io::Result<()> {
        match &mut self.stream {
            Stream::Tcp(stream) => at.registry.register(stream, at.token, BOTH_WAYS),
            Stream::Tls(stream) => at.registry.register(stream.socket(), at.token, BOTH_WAYS),
            Stream::Unix(stream) => at.registry.register(stream, at.token, BOTH_WAYS),
            Stream::Duplex(end) => {
                end.register(Weak::clone(at.shards), at.shard, conn);
                Ok(())
            }
        }
    }

    /// Has what a socket's peer still sends be told, and its end.
    pub(crate) fn register_end(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        match &mut self.stream {
            Stream::Tcp(stream) => registry.register(stream, token, Interest::READABLE),
            Stream::Tls(stream) => registry.register(stream.socket(), token, Interest::READABLE),
            Stream::Unix(stream) => registry.register(stream, token, Interest::READABLE),
            Stream::Duplex(_) => Ok(()),
        }
    }

    /// Whether it is a socket whose bytes are MQTT's: nothing of it is kept anywhere but in the kernel.
    pub(crate) fn is_plain(&self) -> bool {
        self.ws.is_none() && matches!(self.stream, Stream::Tcp(_) | Stream::Unix(_))
    }

    /// Whether readiness sources tell of it.
    pub(crate) const fn is_socket(&self) -> bool {
        !matches!(self.stream, Stream::Duplex(_))
    }

    /// Has events arrive nowhere.
    pub(crate) fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        match &mut self.stream {
            Stream::Tcp(stream) => registry.deregister(stream),
            Stream::Tls(stream) => registry.deregister(stream.socket()),
            Stream::Unix(stream) => registry.deregister(stream),
            Stream::Duplex(end) => {
                end.deregister();
                Ok(())
            }
        }
    }

    /// Reads once. A read that does not fill `scratch` has emptied a socket (epoll(7), kqueue(2)), so the call that
    /// would say `WouldBlock` is not made.
    pub(crate) fn read(&mut self, scratch: &mut [u8]) -> io::Result<Got> {
        let len = match &mut self.stream {
            Stream::Tcp(stream) => retry(|| stream.read(scratch))?,
            Stream::Tls(stream) => return stream.read(scratch),
            Stream::Unix(stream) => retry(|| stream.read(scratch))?,
            Stream::Duplex(end) => return end.read(scratch).map(|(len, more)| Got { len, more }),
        };
        Ok(Got { len, more: len == scratch.len() })
    }

    /// As [`Self::read`], into the rest of a packet first; what comes behind it goes to `next`.
    pub(crate) fn read_rest(&mut self, room: &mut [u8], next: &mut [u8]) -> io::Result<Got> {
        let wanted = room.len() + next.len();
        let mut both = [IoSliceMut::new(room), IoSliceMut::new(next)];
        let len = match &mut self.stream {
            Stream::Tcp(stream) => retry(|| stream.read_vectored(&mut both))?,
            Stream::Unix(stream) => retry(|| stream.read_vectored(&mut both))?,
            Stream::Tls(_) | Stream::Duplex(_) => return self.read(room),
        };
        Ok(Got { len, more: len == wanted })
    }

    /// Whether what is read is MQTT as it is, so that it may be read to where it stays.
    pub(crate) fn is_unframed(&self) -> bool {
        self.ws.is_none()
    }

    /// Finds the MQTT bytes in what was read, in place. An end, if any, comes after them; the peer has been told.
    pub(crate) fn unwrap(&mut self, raw: &mut [u8]) -> (Range<usize>, Option<TransportEnd>) {
        let mut rest = 0;
        if let Some(ws) = &mut self.ws
            && let Ws::Upgrading(server) = &mut **ws
        {
            match server.handshake(raw) {
                Handshake::NeedMore => return (0..0, None),
                Handshake::Refuse { response, refusal } => {
                    tracing::debug!(%refusal, "WebSocket upgrade refused");
                    self.write_now(&response);
                    return (0..0, Some(TransportEnd::WebSocket));
                }
                Handshake::Done { consumed, response, .. } => {
                    if !self.write_now(&response) {
                        return (0..0, Some(TransportEnd::Error));
                    }
                    self.ws = Some(Box::new(Ws::Open(WsCodec::server(FRAME_BYTES_MAX), WsEgress::new())));
                    rest = consumed;
                }
            }
        }
        let Some(Ws::Open(codec, egress)) = self.ws.as_deref_mut() else { return (0..raw.len(), None) };
        let mut reply = Vec::new();
        let decoded = codec.decode(&mut raw[rest..], &mut reply, ());
        egress.queue_reply(&reply);
        let end = decoded.closed.map(|closed| match closed {
            Closed::ByPeer(_) => TransportEnd::Closed,
            Closed::Fault(fault) => {
                tracing::debug!(%fault, "WebSocket fault");
                TransportEnd::WebSocket
            }
        });
        (decoded.payload.start + rest..decoded.payload.end + rest, end)
    }

    /// Writes as much of the outbox as fits one call; advances it.
    pub(crate) fn write(&mut self, outbox: &mut Outbox) -> io::Result<Wrote> {
        let mut slices = [IoSlice::new(&[]); SLICES_MAX];
        let Some(Ws::Open(_, egress)) = self.ws.as_deref_mut() else {
            let count = outbox.io_slices(&mut slices);
            let (written, is_full) = write_slices(&mut self.stream, &slices[..count])?;
            outbox.advance(written);
            return Ok(Wrote { outbox: written, is_full });
        };
        let flush = egress.flush::<Server>(outbox.len(), ());
        if flush.is_empty() {
            let is_full = write_rest(&mut self.stream)?;
            return Ok(Wrote { outbox: 0, is_full });
        }
        let header = flush.header;
        let count = outbox.io_slices(&mut slices);
        let mut frame = [IoSlice::new(&[]); SLICES_MAX + 2];
        frame[0] = IoSlice::new(flush.reply);
        frame[1] = IoSlice::new(header.as_bytes());
        let count = 2 + first_bytes(&slices[..count], flush.payload, &mut frame[2..]);
        let (written, is_full) = write_slices(&mut self.stream, &frame[..count])?;
        let of_outbox = egress.advance(written);
        outbox.advance(of_outbox);
        Ok(Wrote { outbox: of_outbox, is_full })
    }

    /// Whether there is something to write although the outbox may be empty.
    pub(crate) fn has_reply(&self) -> bool {
        matches!(self.ws.as_deref(), Some(Ws::Open(_, egress)) if egress.is_waiting())
            || matches!(&self.stream, Stream::Tls(stream) if stream.wants_write())
    }

    /// Begins to close: a WebSocket says so after the outbox.
    pub(crate) fn begin_close(&mut self) {
        if let Some(Ws::Open(codec, egress)) = self.ws.as_deref_mut()
            && !codec.is_closing()
        {
            let mut frame = Vec::new();
            codec.close(WS_NORMAL_CLOSURE, "", &mut frame, ());
            egress.queue_reply(&frame);
        }
    }

    /// Nothing more will be written: the peer reads the end.
    pub(crate) fn finish(&mut self) -> io::Result<()> {
        match &mut self.stream {
            Stream::Tcp(stream) => stream.shutdown(Shutdown::Write),
            Stream::Tls(stream) => stream.finish(),
            Stream::Unix(stream) => stream.shutdown(Shutdown::Write),
            Stream::Duplex(end) => {
                end.finish();
                Ok(())
            }
        }
    }

    /// Whether closing it while the peer still sends could destroy what the peer has not read yet.
    pub(crate) fn must_linger(&self) -> bool {
        matches!(self.stream, Stream::Tcp(_) | Stream::Tls(_))
    }

    /// Whether there is something in an in-process pipe, whichever its direction.
    pub(crate) fn has_unread(&self) -> bool {
        matches!(&self.stream, Stream::Duplex(end) if end.has_unread())
    }

    /// A response on a fresh connection, whose send buffer is empty and larger than any.
    fn write_now(&mut self, bytes: &[u8]) -> bool {
        matches!(write_slices(&mut self.stream, &[IoSlice::new(bytes)]), Ok((_, false)))
    }
}

/// Where a transport is registered.
#[derive(Debug)]
pub(crate) struct Place<'a> {
    /// The shard's readiness source.
    pub(crate) registry: &'a Registry,
    /// The token that events carry.
    pub(crate) token: Token,
    /// Those a duplex tells instead.
    pub(crate) shards: &'a Weak<Shards>,
    /// Which of them.
    pub(crate) shard: usize,
}

impl From<TcpStream> for Stream {
    fn from(stream: TcpStream) -> Self {
        Self::Tcp(stream)
    }
}

impl From<UnixStream> for Stream {
    fn from(stream: UnixStream) -> Self {
        Self::Unix(stream)
    }
}

fn write_slices(stream: &mut Stream, slices: &[IoSlice<'_>]) -> io::Result<(usize, bool)> {
    let wanted: usize = slices.iter().map(|slice| slice.len()).sum();
    let result = match stream {
        Stream::Tcp(stream) => match slices {
            // The shorter way through the system.
            [slice] => retry(|| stream.write(slice)),
            slices => retry(|| stream.write_vectored(slices)),
        },
        Stream::Tls(stream) => return stream.write(slices),
        Stream::Unix(stream) => retry(|| stream.write_vectored(slices)),
        Stream::Duplex(end) => end.write(slices),
    };
    match result {
        Ok(written) => Ok((written, written < wanted)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok((0, true)),
        Err(error) => Err(error),
    }
}

/// Writes what TLS has left; whether the socket is full.
fn write_rest(stream: &mut Stream) -> io::Result<bool> {
    match stream {
        Stream::Tls(stream) => stream.write(&[]).map(|(_, is_full)| is_full),
        _ => Ok(false),
    }
}

/// How a transport ended that failed with `error`.
pub(crate) fn end_of(error: &io::Error) -> TransportEnd {
    if !tls::is_fault(error) {
        return TransportEnd::Error;
    }
    tracing::debug!(%error, "TLS fault");
    TransportEnd::Tls
}

/// A signal is no reason to give up.
pub(crate) fn retry<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// Fills `out` with the first `bytes` bytes of `slices`; returns how many were filled.
fn first_bytes<'a>(slices: &'a [IoSlice<'_>], bytes: usize, out: &mut [IoSlice<'a>]) -> usize {
    let mut left = bytes;
    let mut count = 0;
    for (slot, slice) in out.iter_mut().zip(slices) {
        if left == 0 {
            break;
        }
        let part = &slice[..slice.len().min(left)];
        *slot = IoSlice::new(part);
        left -= part.len();
        count += 1;
    }
    count
}

/// Registered once, edge-triggered: no system call to ask for writability and none to take the question back.
const BOTH_WAYS: Interest = Interest::READABLE.add(Interest::WRITABLE);

/// Slices in one write: as many as are worth a system call; the kernel's limit is 1024.
const SLICES_MAX: usize = 64;

/// RFC 6455 section 7.4.1.
const WS_NORMAL_CLOSURE: u16 = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_are_cut_to_the_bytes_of_a_frame() {
        let slices = [IoSlice::new(b"abc"), IoSlice::new(b"defg"), IoSlice::new(b"h")];
        for (bytes, expected) in [(0, ""), (2, "ab"), (3, "abc"), (5, "abcde"), (8, "abcdefgh"), (9, "abcdefgh")] {
            let mut out = [IoSlice::new(&[]); 3];
            let count = first_bytes(&slices, bytes, &mut out);
            let text: Vec<u8> = out[..count].iter().flat_map(|slice| slice.to_vec()).collect();
            assert_eq!(text, expected.as_bytes());
        }
    }
}
