//! The task of one connection: moves bytes between its two ends by way of a [`Link`].

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    io::ReadBuf,
    net::{TcpStream, UnixStream},
};

use super::{
    Inner,
    link::{Link, Next},
    rule::Direction,
    secure::Secured,
};
use crate::{
    client::{BoxStream, Stream},
    clock::Timer,
};

/// One end of a connection.
pub(super) enum End {
    Tcp(TcpStream),
    Tls(Box<Secured>),
    Other(BoxStream),
}

impl End {
    fn as_stream(&mut self) -> Pin<&mut (dyn Stream + 'static)> {
        match self {
            Self::Tcp(stream) => Pin::new(stream),
            Self::Tls(stream) => Pin::new(&mut **stream),
            Self::Other(stream) => Pin::new(&mut **stream),
        }
    }

    /// Closes it as a network does that fails: the peer's next read or write does.
    pub(super) fn reset(self) {
        let socket = match &self {
            Self::Tcp(socket) => Some(socket),
            Self::Tls(stream) => stream.socket(),
            Self::Other(_) => None,
        };
        if let Some(socket) = socket {
            // Zero makes the system forget what is unsent and say RST.
            let _ = socket.set_zero_linger();
        }
    }
}

impl From<UnixStream> for End {
    fn from(stream: UnixStream) -> Self {
        Self::Other(Box::new(stream))
    }
}

/// Runs a connection to its end.
pub(super) async fn run(inner: Arc<Inner>, number: u64, link: Arc<Mutex<Link>>, client: End, broker: End) {
    let timer = Timer::new(&inner.clock);
    let buffer = vec![0; READ_BYTES].into_boxed_slice();
    let mut pump = Pump { inner: &inner, link: &link, ends: [client, broker], timer, buffer, lingers: false };
    poll_fn(|cx| pump.poll(cx)).await;
    let Pump { ends: [client, broker], .. } = pump;
    // Forgotten first: who sees its end must not find it any more.
    inner.ended(number, &link);
    let is_reset = link.lock().is_reset;
    if is_reset {
        client.reset();
        broker.reset();
    }
}

struct Pump<'a> {
    inner: &'a Inner,
    link: &'a Mutex<Link>,
    /// The client's, then the broker's.
    ends: [End; 2],
    timer: Timer,
    buffer: Box<[u8]>,
    /// One direction is done; the other is given a moment.
    lingers: bool,
}

impl Pump<'_> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        for _ in 0..TURNS_MAX {
            let mut progress = false;
            for way in WAYS {
                progress |= self.write(cx, way);
                progress |= self.read(cx, way);
            }
            let link = self.link.lock();
            if link.is_over() || link.is_buried() {
                return Poll::Ready(());
            }
            drop(link);
            if !progress && self.park(cx) {
                return Poll::Pending;
            }
        }
        // Connections that are always ready take turns.
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Reads what the sender of one direction has.
    fn read(&mut self, cx: &mut Context<'_>, way: Direction) -> bool {
        let now = self.inner.clock.now_in_runtime();
        if !self.link.lock().wants_read(now, way, &self.inner.rules.lock()) {
            return false;
        }
        let (from, _) = ends(way);
        let mut buffer = ReadBuf::new(&mut self.buffer);
        let read = self.ends[from].as_stream().poll_read(cx, &mut buffer);
        let mut link = self.link.lock();
        match read {
            Poll::Pending => return false,
            Poll::Ready(Ok(())) if buffer.filled().is_empty() => link.finish(now, way, "end"),
            Poll::Ready(Ok(())) => link.receive(now, way, buffer.filled(), &mut self.inner.rules.lock()),
            Poll::Ready(Err(error)) => {
                link.finish(now, way, &format!("end: {error}"));
                if !link.is_dead {
                    // Nothing can be written to it either.
                    link.close(way.opposite());
                }
            }
        }
        true
    }

    /// Writes what may go to the receiver of one direction.
    fn write(&mut self, cx: &mut Context<'_>, way: Direction) -> bool {
        let now = self.inner.clock.now_in_runtime();
        let (_, to) = ends(way);
        let mut link = self.link.lock();
        let mut progress = false;
        for _ in 0..WRITES_PER_TURN {
            let stream = self.ends[to].as_stream();
            let done = match link.next(now, way, &self.inner.rules.lock()) {
                Next::Nothing => {
                    // TLS may hold some of it yet; if it fails, the next read or write says so.
                    let _ = stream.poll_flush(cx);
                    return progress;
                }
                Next::End => stream.poll_shutdown(cx).map_ok(|()| 0),
                Next::Bytes(bytes) => match stream.poll_write(cx, bytes) {
                    Poll::Ready(Ok(0)) => Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                    done => done,
                },
            };
            match done {
                Poll::Pending => return progress,
                Poll::Ready(Ok(0) | Err(_)) => link.close(way),
                Poll::Ready(Ok(count)) => link.advance(way, count),
            }
            progress = true;
        }
        progress
    }

    /// Sets the timer for what is due next; false if it is due already.
    fn park(&mut self, cx: &mut Context<'_>) -> bool {
        let now = self.inner.clock.now_in_runtime();
        let mut link = self.link.lock();
        link.waker = Some(cx.waker().clone());
        let deadline = link.deadline(now, &self.inner.rules.lock());
        if deadline.is_none() && link.is_ending() {
            if self.lingers && self.timer.at().is_some_and(|at| at <= now) {
                for way in WAYS {
                    link.close(way);
                }
                return false;
            }
            if !self.lingers {
                self.lingers = true;
                self.timer.set(Some(now + LINGER_TIMEOUT));
            }
        } else if self.timer.at() != deadline {
            self.timer.set(deadline);
            self.lingers = false;
        }
        drop(link);
        if self.timer.poll(cx).is_pending() {
            return true;
        }
        if !self.lingers {
            self.timer.set(None);
        }
        false
    }
}

/// The indices of the sender and the receiver of one direction.
const fn ends(way: Direction) -> (usize, usize) {
    match way {
        Direction::ToBroker => (0, 1),
        Direction::ToClient => (1, 0),
    }
}

const WAYS: [Direction; 2] = [Direction::ToBroker, Direction::ToClient];

/// What is read at once.
const READ_BYTES: usize = 16 << 10;

/// Turns before other tasks have theirs.
const TURNS_MAX: usize = 16;

/// Pieces written before the other direction has its turn.
const WRITES_PER_TURN: usize = 64;

/// How long one side may take to close when the other has: as long as a shard waits.
const LINGER_TIMEOUT: Duration = Duration::from_secs(2);
