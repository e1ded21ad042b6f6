//! A WebSocket as a stream of bytes: the protocol is [`crate::net::ws`], here is its socket.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};

use super::{
    reconnect::random,
    transport::{BoxStream, Stream},
};
use crate::net::ws::{
    Client, ClientHandshake, Closed, FRAME_BYTES_MAX, Subprotocol, WsClient, WsCodec, apply_mask, encode_header,
};

/// The client's end of an upgraded connection.
pub(super) struct WebSocket {
    stream: BoxStream,
    codec: WsCodec<Client>,
    /// Where frames are read to and decoded in place.
    raw: Vec<u8>,
    /// MQTT bytes that were read and did not fit what the caller had room for.
    payload: Vec<u8>,
    payload_at: usize,
    /// Whole frames on their way out.
    out: Vec<u8>,
    written: usize,
    end: Option<Closed>,
}

impl WebSocket {
    /// What it runs on.
    pub(super) fn stream(&self) -> &dyn Stream {
        &*self.stream
    }

    /// Upgrades the connection.
    pub(super) async fn connect(mut stream: BoxStream, authority: &str, path: &str) -> io::Result<Self> {
        let nonce = (u128::from(random()) << 64 | u128::from(random())).to_be_bytes();
        let (mut machine, request) =
            WsClient::new(authority, path, Subprotocol::Mqtt, nonce).map_err(io::Error::other)?;
        stream.write_all(&request).await?;
        stream.flush().await?;
        let mut raw = vec![0; READ_BYTES];
        loop {
            let count = stream.read(&mut raw).await?;
            if count == 0 {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the server closed during the upgrade"));
            }
            let input = raw.get(..count).unwrap_or_default();
            if let ClientHandshake::Done { consumed } = machine.handshake(input).map_err(io::Error::other)? {
                let mut socket = Self {
                    stream,
                    codec: WsCodec::client(FRAME_BYTES_MAX),
                    raw,
                    payload: Vec::new(),
                    payload_at: 0,
                    out: Vec::new(),
                    written: 0,
                    end: None,
                };
                // What came behind the response are the first frames.
                socket.raw.copy_within(consumed..count, 0);
                socket.decode(count - consumed);
                return Ok(socket);
            }
        }
    }

    /// Decodes the first `count` bytes of `raw`, and keeps what they hold.
    fn decode(&mut self, count: usize) {
        let raw = self.raw.get_mut(..count).expect("no more is read than there is room");
        let decoded = self.codec.decode(raw, &mut self.out, mask());
        self.payload.clear();
        self.payload.extend_from_slice(raw.get(decoded.payload).unwrap_or_default());
        self.payload_at = 0;
        self.end = self.end.take().or(decoded.closed);
    }

    /// Writes the frames that wait; pending while the socket takes no more.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.written < self.out.len() {
            let rest = self.out.get(self.written..).unwrap_or_default();
            match ready!(Pin::new(&mut self.stream).poll_write(cx, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => self.written += count,
            }
        }
        self.out.clear();
        self.written = 0;
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for WebSocket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        // Pongs and rests of frames leave whenever the connection is looked at.
        if let Poll::Ready(Err(error)) = this.poll_drain(cx) {
            return Poll::Ready(Err(error));
        }
        loop {
            let rest = this.payload.get(this.payload_at..).unwrap_or_default();
            if !rest.is_empty() {
                let count = rest.len().min(buf.remaining());
                buf.put_slice(rest.get(..count).unwrap_or_default());
                this.payload_at += count;
                return Poll::Ready(Ok(()));
            }
            match this.end {
                Some(Closed::ByPeer(_)) => return Poll::Ready(Ok(())),
                Some(Closed::Fault(fault)) => {
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, fault)));
                }
                None => {}
            }
            // A server that pings and never reads must not fill our memory; the drain above wakes this task again.
            if this.out.len() - this.written > REPLY_BYTES_MAX {
                return Poll::Pending;
            }
            let mut raw = ReadBuf::new(&mut this.raw);
            ready!(Pin::new(&mut this.stream).poll_read(cx, &mut raw))?;
            let count = raw.filled().len();
            if count == 0 {
                return Poll::Ready(Ok(()));
            }
            this.decode(count);
            if let Poll::Ready(Err(error)) = this.poll_drain(cx) {
                return Poll::Ready(Err(error));
            }
        }
    }
}

impl AsyncWrite for WebSocket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_drain(cx))?;
        let payload = buf.get(..buf.len().min(WRITE_BYTES)).unwrap_or_default();
        let key = mask();
        encode_header(payload.len(), &mut this.out, Some(key));
        let start = this.out.len();
        this.out.extend_from_slice(payload);
        apply_mask(this.out.get_mut(start..).unwrap_or_default(), key);
        // The frame counts as written: what the socket does not take now leaves before anything else.
        match this.poll_drain(cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Ready(Ok(payload.len())),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_drain(cx))?;
        Pin::new(&mut this.stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.codec.is_closing() {
            this.codec.close(CLOSE_NORMAL, "", &mut this.out, mask());
        }
        ready!(this.poll_drain(cx))?;
        Pin::new(&mut this.stream).poll_shutdown(cx)
    }
}

/// A fresh masking key, which RFC 6455 section 5.3 wants to be unpredictable.
fn mask() -> [u8; 4] {
    (random() as u32).to_be_bytes()
}

const READ_BYTES: usize = 64 * 1024;

/// Payload of one frame at most: what is copied to be masked stays in the cache.
const WRITE_BYTES: usize = 64 * 1024;

/// Replies that may wait before reading does.
const REPLY_BYTES_MAX: usize = 64 * 1024;

/// Status code of a normal closure (RFC 6455 section 7.4.1).
const CLOSE_NORMAL: u16 = 1000;
