//! The in-process connection: two bounded byte pipes between a client's task and a shard, without sockets.
//!
//! The client's end is a tokio stream. The shard's end never waits: it is told through the shard's inbox that there is
//! something to read, or room to write, once for each time it found nothing.

use std::{
    collections::VecDeque,
    io::{self, IoSlice},
    pin::Pin,
    sync::{Arc, Weak},
    task::{Context, Poll, Waker},
};

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};

use crate::{broker::ConnId, net::shard::Shards};

/// The client's end: `AsyncRead` and `AsyncWrite`. Dropping it closes the connection.
#[derive(Debug)]
pub struct Duplex {
    end: ClientEnd,
}

#[derive(Debug)]
enum ClientEnd {
    /// Of a pipe to a shard.
    Direct(Pipe),
    /// Of one to something that stands between.
    Relayed(DuplexStream),
}

/// The client's end of a pipe to a shard.
#[derive(Debug)]
struct Pipe {
    link: Arc<Link>,
}

/// The shard's end. Dropping it lets the client read what is left, then the end.
#[derive(Debug)]
pub(crate) struct DuplexEnd {
    link: Arc<Link>,
}

/// A connected pair with room for `bytes_max` in each direction.
pub(crate) fn pair(bytes_max: usize) -> (Duplex, DuplexEnd) {
    let link = Arc::new(Link { bytes_max, state: Mutex::new(State::default()) });
    (Duplex { end: ClientEnd::Direct(Pipe { link: Arc::clone(&link) }) }, DuplexEnd { link })
}

/// A connected pair for something that stands between the client and the shard.
pub(crate) fn relayed(bytes_max: usize) -> (Duplex, DuplexStream) {
    let (client, near) = tokio::io::duplex(bytes_max);
    (Duplex { end: ClientEnd::Relayed(client) }, near)
}

/// Room in each direction unless told otherwise: as much as a shard reads at once.
pub const DUPLEX_BYTES_MAX: usize = 64 << 10;

#[derive(Debug)]
struct Link {
    bytes_max: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    to_shard: VecDeque<u8>,
    to_client: VecDeque<u8>,
    /// The client writes no more: it shut down or is gone.
    client_finished: bool,
    /// The client is gone: it reads no more either.
    client_gone: bool,
    /// The shard writes no more.
    shard_finished: bool,
    shard_gone: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
    /// Whom to tell, as long as the shard wants to know.
    notify: Option<Notify>,
    /// The shard found nothing to read since it was last told.
    wants_readable: bool,
    /// The shard found no room since it was last told.
    wants_writable: bool,
    /// Somebody waits for the client to have read everything.
    wants_drained: bool,
}

/// Where the shard's end lives.
#[derive(Debug, Clone)]
struct Notify {
    shards: Weak<Shards>,
    shard: usize,
    conn: ConnId,
}

impl State {
    /// Whom to tell that there is something to read, if that was asked for.
    fn take_readable(&mut self) -> Option<Notify> {
        if std::mem::take(&mut self.wants_readable) { self.notify.clone() } else { None }
    }

    fn take_writable(&mut self) -> Option<Notify> {
        if std::mem::take(&mut self.wants_writable) { self.notify.clone() } else { None }
    }
}

impl Notify {
    fn readable(self) {
        if let Some(shards) = self.shards.upgrade() {
            shards.notify_duplex(self.shard, self.conn, false);
        }
    }

    fn drained(self) {
        if let Some(shards) = self.shards.upgrade() {
            shards.notify_settle();
        }
    }

    fn writable(self) {
        if let Some(shards) = self.shards.upgrade() {
            shards.notify_duplex(self.shard, self.conn, true);
        }
    }
}

impl AsyncRead for Duplex {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().end {
            ClientEnd::Direct(pipe) => Pin::new(pipe).poll_read(cx, buf),
            ClientEnd::Relayed(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Duplex {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().end {
            ClientEnd::Direct(pipe) => Pin::new(pipe).poll_write(cx, bytes),
            ClientEnd::Relayed(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().end {
            ClientEnd::Direct(pipe) => Pin::new(pipe).poll_write_vectored(cx, slices),
            ClientEnd::Relayed(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        matches!(self.end, ClientEnd::Direct(_))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().end {
            ClientEnd::Direct(pipe) => Pin::new(pipe).poll_shutdown(cx),
            ClientEnd::Relayed(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

impl AsyncRead for Pipe {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut state = self.link.state.lock();
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        if state.to_client.is_empty() {
            if state.shard_finished {
                return Poll::Ready(Ok(()));
            }
            state.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let (head, tail) = state.to_client.as_slices();
        let from_head = head.len().min(buf.remaining());
        buf.put_slice(&head[..from_head]);
        let from_tail = tail.len().min(buf.remaining());
        buf.put_slice(&tail[..from_tail]);
        consume(&mut state.to_client, from_head + from_tail);
        let writable = state.take_writable();
        let is_awaited = state.to_client.is_empty() && std::mem::take(&mut state.wants_drained);
        let drained = if is_awaited { state.notify.clone() } else { None };
        drop(state);
        if let Some(shard) = writable {
            shard.writable();
        }
        if let Some(shard) = drained {
            shard.drained();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut state = self.link.state.lock();
        if state.shard_gone || state.client_finished {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let written = append(&mut state.to_shard, self.link.bytes_max, slices);
        if written == 0 && slices.iter().any(|slice| !slice.is_empty()) {
            state.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let readable = state.take_readable();
        drop(state);
        if let Some(shard) = readable {
            shard.readable();
        }
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.link.finish_client(false);
        Poll::Ready(Ok(()))
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        self.link.finish_client(true);
    }
}

impl Link {
    /// The client writes no more; if it is `gone`, it does not read either.
    fn finish_client(&self, gone: bool) {
        let mut state = self.state.lock();
        state.client_finished = true;
        state.client_gone |= gone;
        if gone {
            state.to_client = VecDeque::new();
        }
        let readable = state.take_readable();
        let writable = if gone { state.take_writable() } else { None };
        drop(state);
        if let Some(shard) = readable {
            shard.readable();
        }
        if let Some(shard) = writable {
            shard.writable();
        }
    }
}

impl DuplexEnd {
    /// Tells `shard` of readiness from now on. Like a fresh registration of a socket, it says nothing of what is ready
    /// already: try first.
    pub(crate) fn register(&self, shards: Weak<Shards>, shard: usize, conn: ConnId) {
        let mut state = self.link.state.lock();
        state.notify = Some(Notify { shards, shard, conn });
        state.wants_readable = false;
        state.wants_writable = false;
    }

    /// Tells nobody.
    pub(crate) fn deregister(&self) {
        self.link.state.lock().notify = None;
    }

    /// Whether either side has written what the other has not read. Whoever waits for the client is told when it has.
    pub(crate) fn has_unread(&self) -> bool {
        let mut state = self.link.state.lock();
        state.wants_drained = !state.to_client.is_empty();
        state.wants_drained || !state.to_shard.is_empty()
    }

    /// Takes what the client has written; whether there is more (the end included), so that reading on is worth it.
    /// After `false` or `WouldBlock` the shard will be told.
    pub(crate) fn read(&self, buffer: &mut [u8]) -> io::Result<(usize, bool)> {
        let mut state = self.link.state.lock();
        if state.to_shard.is_empty() && !state.client_finished {
            state.wants_readable = true;
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let (head, tail) = state.to_shard.as_slices();
        let from_head = head.len().min(buffer.len());
        buffer[..from_head].copy_from_slice(&head[..from_head]);
        let from_tail = tail.len().min(buffer.len() - from_head);
        buffer[from_head..from_head + from_tail].copy_from_slice(&tail[..from_tail]);
        consume(&mut state.to_shard, from_head + from_tail);
        let more = !state.to_shard.is_empty() || state.client_finished;
        state.wants_readable = !more;
        let writer = state.writer.take();
        drop(state);
        if let Some(writer) = writer {
            writer.wake();
        }
        Ok((from_head + from_tail, more))
    }

    /// Gives the client as much as there is room for. After less than everything, the shard will be told of room.
    pub(crate) fn write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut state = self.link.state.lock();
        if state.client_gone || state.shard_finished {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let wanted: usize = slices.iter().map(|slice| slice.len()).sum();
        let written = append(&mut state.to_client, self.link.bytes_max, slices);
        state.wants_writable = written < wanted;
        if written == 0 && wanted > 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let reader = state.reader.take();
        drop(state);
        if let Some(reader) = reader {
            reader.wake();
        }
        Ok(written)
    }

    /// The client will read the end after what was written.
    pub(crate) fn finish(&self) {
        let mut state = self.link.state.lock();
        state.shard_finished = true;
        let reader = state.reader.take();
        drop(state);
        if let Some(reader) = reader {
            reader.wake();
        }
    }
}

impl Drop for DuplexEnd {
    fn drop(&mut self) {
        let mut state = self.link.state.lock();
        state.shard_gone = true;
        state.shard_finished = true;
        state.notify = None;
        state.to_shard = VecDeque::new();
        let wakers = [state.reader.take(), state.writer.take()];
        drop(state);
        wakers.into_iter().flatten().for_each(Waker::wake);
    }
}

/// Appends as much as there is room for.
fn append(pipe: &mut VecDeque<u8>, bytes_max: usize, slices: &[IoSlice<'_>]) -> usize {
    let mut written = 0;
    for slice in slices {
        let take = slice.len().min(bytes_max - pipe.len());
        pipe.extend(&slice[..take]);
        written += take;
        if take < slice.len() {
            break;
        }
    }
    written
}

/// Removes `count` bytes from the front; an empty pipe keeps only a small buffer.
fn consume(pipe: &mut VecDeque<u8>, count: usize) {
    pipe.drain(..count);
    if pipe.is_empty() && pipe.capacity() > KEEP_BYTES_MAX {
        *pipe = VecDeque::new();
    }
}

/// An idle connection holds no more than this in each direction.
const KEEP_BYTES_MAX: usize = 2 << 10;

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicUsize, Ordering},
        task::Wake,
    };

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    struct Client {
        duplex: Duplex,
        wakes: Arc<Count>,
    }

    impl Client {
        fn new(bytes_max: usize) -> (Self, DuplexEnd) {
            let (duplex, end) = pair(bytes_max);
            (Self { duplex, wakes: Arc::default() }, end)
        }

        fn write(&mut self, bytes: &[u8]) -> Poll<io::Result<usize>> {
            let waker = Waker::from(Arc::clone(&self.wakes));
            Pin::new(&mut self.duplex).poll_write(&mut Context::from_waker(&waker), bytes)
        }

        fn read(&mut self, max: usize) -> Poll<Vec<u8>> {
            let waker = Waker::from(Arc::clone(&self.wakes));
            let mut bytes = vec![0; max];
            let mut buffer = ReadBuf::new(&mut bytes);
            match Pin::new(&mut self.duplex).poll_read(&mut Context::from_waker(&waker), &mut buffer) {
                Poll::Ready(result) => {
                    result.unwrap();
                    let len = buffer.filled().len();
                    bytes.truncate(len);
                    Poll::Ready(bytes)
                }
                Poll::Pending => Poll::Pending,
            }
        }

        fn wakes(&self) -> usize {
            self.wakes.0.load(Ordering::Relaxed)
        }
    }

    #[test]
    fn a_full_pipe_takes_no_more_until_it_is_read() {
        let (mut client, end) = Client::new(8);
        assert!(matches!(client.write(b"0123456789"), Poll::Ready(Ok(8))));
        assert!(client.write(b"89").is_pending());
        let mut buffer = [0; 5];
        assert_eq!(end.read(&mut buffer).unwrap(), (5, true));
        assert_eq!(client.wakes(), 1);
        assert!(matches!(client.write(b"89abcd"), Poll::Ready(Ok(5))));
        let mut rest = [0; 16];
        assert_eq!(end.read(&mut rest).unwrap(), (8, false));
        assert_eq!(&rest[..8], b"56789abc");
        assert_eq!(end.read(&mut rest).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn the_reader_is_woken_once_for_each_wait() {
        let (mut client, end) = Client::new(8);
        assert!(client.read(4).is_pending());
        assert_eq!(end.write(&[IoSlice::new(b"ab"), IoSlice::new(b"cdefghij")]).unwrap(), 8);
        assert_eq!(end.write(&[IoSlice::new(b"more")]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        assert_eq!(client.wakes(), 1);
        assert_eq!(client.read(16), Poll::Ready(b"abcdefgh".to_vec()));
    }

    #[test]
    fn half_close_ends_one_direction_only() {
        let (mut client, end) = Client::new(8);
        assert!(matches!(client.write(b"bye"), Poll::Ready(Ok(3))));
        let ClientEnd::Direct(pipe) = &client.duplex.end else { panic!("a pipe to a shard") };
        pipe.link.finish_client(false);
        let mut buffer = [0; 8];
        assert_eq!(end.read(&mut buffer).unwrap(), (3, true));
        assert_eq!(end.read(&mut buffer).unwrap(), (0, true));
        assert_eq!(end.write(&[IoSlice::new(b"ack")]).unwrap(), 3);
        end.finish();
        assert_eq!(client.read(8), Poll::Ready(b"ack".to_vec()));
        assert_eq!(client.read(8), Poll::Ready(Vec::new()));
    }

    #[test]
    fn each_end_notices_that_the_other_was_dropped() {
        let (mut client, end) = Client::new(8);
        assert_eq!(end.write(&[IoSlice::new(b"last")]).unwrap(), 4);
        drop(end);
        assert!(matches!(client.write(b"x"), Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::BrokenPipe));
        assert_eq!(client.read(8), Poll::Ready(b"last".to_vec()));
        assert_eq!(client.read(8), Poll::Ready(Vec::new()));
        let (mut client, end) = Client::new(8);
        assert!(matches!(client.write(b"last"), Poll::Ready(Ok(4))));
        drop(client);
        let mut buffer = [0; 8];
        assert_eq!(end.read(&mut buffer).unwrap(), (4, true));
        assert_eq!(end.read(&mut buffer).unwrap(), (0, true));
        assert_eq!(end.write(&[IoSlice::new(b"x")]).unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}
