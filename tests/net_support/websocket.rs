//! The client's end of a WebSocket, as a byte stream and frame by frame.

use std::{
    collections::VecDeque,
    io::{self, Read, Write},
    net::TcpStream,
};

use ferromq::net::ws::{Client, ClientHandshake, FRAME_BYTES_MAX, Subprotocol, WsClient, WsCodec, apply_mask};

/// Bytes written go out as one binary frame each time.
#[derive(Debug)]
pub struct WebSocket {
    stream: TcpStream,
    codec: WsCodec<Client>,
    received: VecDeque<u8>,
    closed: bool,
}

impl WebSocket {
    pub fn upgrade(mut stream: TcpStream, path: &str) -> Self {
        let (mut handshake, request) =
            WsClient::new("localhost", path, Subprotocol::Mqtt, *b"a nonce of 16 by").unwrap();
        stream.write_all(&request).unwrap();
        let mut socket =
            Self { stream, codec: WsCodec::client(FRAME_BYTES_MAX), received: VecDeque::new(), closed: false };
        let mut buffer = [0; 4096];
        loop {
            let len = socket.stream.read(&mut buffer).unwrap();
            assert_ne!(len, 0, "the broker answers the upgrade");
            if let ClientHandshake::Done { consumed } = handshake.handshake(&buffer[..len]).unwrap() {
                socket.accept(&mut buffer[consumed..len]);
                return socket;
            }
        }
    }

    /// Writes one frame, whatever it is.
    pub fn frame(&mut self, opcode: u8, is_final: bool, payload: &[u8]) {
        let frame = frame(opcode, is_final, payload);
        self.stream.write_all(&frame).unwrap();
    }

    /// Writes bytes as they are.
    pub fn write_raw(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// Reads frames as they are.
    pub fn read_raw(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.read(buffer)
    }

    fn accept(&mut self, raw: &mut [u8]) {
        let mut reply = Vec::new();
        let decoded = self.codec.decode(raw, &mut reply, MASK);
        self.received.extend(&raw[decoded.payload]);
        self.closed |= decoded.closed.is_some();
        if !reply.is_empty() {
            // The broker may have closed already.
            let _ = self.stream.write_all(&reply);
        }
    }
}

/// A masked frame.
pub fn frame(opcode: u8, is_final: bool, payload: &[u8]) -> Vec<u8> {
    let fin = if is_final { 0x80 } else { 0x00 };
    let mut frame = vec![fin | opcode];
    match payload.len() {
        len @ ..126 => frame.push(0x80 | len as u8),
        len @ 126..=0xFFFF => {
            frame.push(0x80 | 0x7E);
            frame.extend((len as u16).to_be_bytes());
        }
        len => {
            frame.push(0x80 | 0x7F);
            frame.extend((len as u64).to_be_bytes());
        }
    }
    frame.extend(MASK);
    let start = frame.len();
    frame.extend(payload);
    apply_mask(&mut frame[start..], MASK);
    frame
}

impl Read for WebSocket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut raw = [0; 16 << 10];
        while self.received.is_empty() && !self.closed {
            let len = self.stream.read(&mut raw)?;
            if len == 0 {
                return Ok(0);
            }
            self.accept(&mut raw[..len]);
        }
        self.received.read(buffer)
    }
}

impl Write for WebSocket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.frame(BINARY, true, bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

pub const CONTINUATION: u8 = 0;
pub const TEXT: u8 = 1;
pub const BINARY: u8 = 2;
pub const CLOSE: u8 = 8;
pub const PING: u8 = 9;

/// Any key will do, as long as it is used.
const MASK: [u8; 4] = [0x5A, 0xC3, 0x0F, 0x91];
