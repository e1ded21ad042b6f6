//! TLS over a socket as a shard uses it: no task and no waiting, only what can be done now.

use std::{
    fmt,
    io::{self, IoSlice, Read, Write},
    net::Shutdown,
};

use mio::net::TcpStream;
use rustls::ServerConnection;

use super::{Tls, fault};
use crate::net::transport::{Got, retry};

/// One connection. At rest it holds rustls' state and some 4 KiB of its buffer, which a plain one does not.
pub(crate) struct TlsStream {
    socket: TcpStream,
    session: ServerConnection,
    tls: Tls,
}

impl TlsStream {
    /// A fresh connection; the handshake comes with the first reads.
    pub(crate) fn new(socket: TcpStream, tls: &Tls) -> io::Result<Self> {
        let session = ServerConnection::new(tls.0.clone()).map_err(fault)?;
        Ok(Self { socket, session, tls: tls.clone() })
    }

    /// The socket, for what concerns readiness.
    pub(crate) fn socket(&mut self) -> &mut TcpStream {
        &mut self.socket
    }

    /// The socket, before anything was read of it, and what is to be spoken on it.
    pub(crate) fn into_parts(self) -> (TcpStream, Tls) {
        (self.socket, self.tls)
    }

    /// Reads until `plain` is full or the socket is empty. What the handshake has to say back is left to
    /// [`TlsStream::write`]. rustls ends who sends too much that means nothing, so this ends.
    pub(crate) fn read(&mut self, plain: &mut [u8]) -> io::Result<Got> {
        let mut len = 0;
        loop {
            match self.session.reader().read(&mut plain[len..]) {
                // The end comes after what was before it.
                Ok(0) => return Ok(Got { len, more: len > 0 }),
                Ok(count) => len += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    match retry(|| self.session.read_tls(&mut self.socket)) {
                        Ok(_) => self.process()?,
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock && len > 0 => {
                            return Ok(Got { len, more: false });
                        }
                        Err(error) => return Err(error),
                    }
                }
                // A peer that closes without saying so. MQTT knows where its packets end, so nothing can be cut unseen.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(Got { len, more: len > 0 }),
                Err(error) => return Err(error),
            }
            if len == plain.len() {
                return Ok(Got { len, more: true });
            }
        }
    }

    /// Takes what rustls has room for and writes what the socket has room for; how much was taken, and whether the
    /// socket is full.
    pub(crate) fn write(&mut self, slices: &[IoSlice<'_>]) -> io::Result<(usize, bool)> {
        let taken = if slices.is_empty() { 0 } else { self.session.writer().write_vectored(slices)? };
        Ok((taken, self.flush()?))
    }

    /// Whether something is to be written that nobody asked for.
    pub(crate) fn wants_write(&self) -> bool {
        self.session.wants_write()
    }

    /// Says that nothing more comes.
    pub(crate) fn finish(&mut self) -> io::Result<()> {
        self.session.send_close_notify();
        self.flush()?;
        self.socket.shutdown(Shutdown::Write)
    }

    /// Writes; whether the socket took less than all.
    fn flush(&mut self) -> io::Result<bool> {
        while self.session.wants_write() {
            match retry(|| self.session.write_tls(&mut self.socket)) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(true),
                Err(error) => return Err(error),
            }
        }
        Ok(false)
    }

    fn process(&mut self) -> io::Result<()> {
        self.session.process_new_packets().map(drop).map_err(|error| {
            // The peer is told why, as far as that goes at once.
            let _ = self.flush();
            fault(error)
        })
    }
}

impl fmt::Debug for TlsStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsStream").field("socket", &self.socket).finish_non_exhaustive()
    }
}
