//! Waiting for events, or until a message is due, with the precision of the system's clock. The poll beneath rounds up to
//! milliseconds: a message that is due in between would wait longer for its load than it then takes through a broker, and
//! those of a millisecond would go at once.

use std::{io, time::Duration};

use mio::{Events, Poll};

/// Has the calling thread woken on time: by default Linux lets a thread sleep for some 50 us longer than it asked.
#[cfg(target_os = "linux")]
#[allow(unsafe_code)] // the standard library has no name for it
pub(super) fn be_punctual() {
    let nanos: libc::c_ulong = 1;
    // SAFETY: the call takes an integer, and changes nothing but when this thread's sleeps end. Where it is refused, they
    // end later.
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, nanos) };
}

#[cfg(not(target_os = "linux"))]
pub(super) fn be_punctual() {}

/// Polls like [`Poll::poll`], but for as long as it is told to and not up to a millisecond longer.
#[cfg(target_os = "linux")]
pub(super) fn poll(poll: &mut Poll, events: &mut Events, longest: Duration) -> io::Result<()> {
    if longest.subsec_nanos().is_multiple_of(NANOS_PER_MILLI) {
        return poll.poll(events, Some(longest));
    }
    wait(poll, longest)?;
    poll.poll(events, Some(Duration::ZERO))
}

#[cfg(not(target_os = "linux"))]
pub(super) fn poll(poll: &mut Poll, events: &mut Events, longest: Duration) -> io::Result<()> {
    poll.poll(events, Some(longest))
}

/// Until there are events, or the time is over.
#[cfg(target_os = "linux")]
#[allow(unsafe_code)] // as above
fn wait(poll: &Poll, longest: Duration) -> io::Result<()> {
    use std::os::fd::AsRawFd;

    let mut source = libc::pollfd { fd: poll.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    let seconds = libc::time_t::try_from(longest.as_secs()).unwrap_or(libc::time_t::MAX);
    let time = libc::timespec { tv_sec: seconds, tv_nsec: longest.subsec_nanos().into() };
    // SAFETY: one descriptor, which is open for as long as `poll` is borrowed; it and the time live for the call, and the
    // signal mask is left as it is.
    match unsafe { libc::ppoll(&raw mut source, 1, &raw const time, std::ptr::null()) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

#[cfg(target_os = "linux")]
const NANOS_PER_MILLI: u32 = 1_000_000;

#[cfg(test)]
mod tests {
    use mio::{Token, Waker};

    use super::*;

    #[test]
    fn events_are_told_whether_the_time_is_whole_milliseconds_or_not() {
        let (mut source, mut events) = (Poll::new().unwrap(), Events::with_capacity(4));
        let waker = Waker::new(source.registry(), Token(7)).unwrap();
        for longest in [Duration::from_secs(20), Duration::from_nanos(20_000_000_001)] {
            waker.wake().unwrap();
            poll(&mut source, &mut events, longest).unwrap();
            assert_eq!(events.iter().map(mio::event::Event::token).collect::<Vec<_>>(), [Token(7)], "{longest:?}");
        }
        poll(&mut source, &mut events, Duration::from_nanos(1)).unwrap();
        assert!(events.is_empty(), "the time was over");
    }
}
