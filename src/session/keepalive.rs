//! Keep-alive, the client's end: when it pings. (The server's is a number and a time of `broker::conn`.)

use std::time::{Duration, Instant};

/// When a client that says nothing pings. Activity only writes a time; the timer looks at it when it fires.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeepAlive {
    interval: Option<Duration>,
    last: Instant,
}

impl KeepAlive {
    /// A client's view: it pings after `seconds` without having sent a packet [MQTT-3.1.2-20]. 0: never.
    pub fn client(seconds: u16, now: Instant) -> Self {
        Self { interval: interval(seconds), last: now }
    }

    /// Something was sent.
    #[inline]
    pub fn touch(&mut self, now: Instant) {
        self.last = now;
    }

    /// When it is due, if nothing happens before.
    pub fn deadline(&self) -> Option<Instant> {
        self.interval.map(|interval| self.last + interval)
    }

    /// Whether it is due.
    pub fn is_due(&self, now: Instant) -> bool {
        self.deadline().is_some_and(|deadline| deadline <= now)
    }
}

fn interval(seconds: u16) -> Option<Duration> {
    (seconds > 0).then(|| Duration::from_secs(seconds.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_pings_after_its_keep_alive_without_a_packet() {
        let start = Instant::now();
        let mut keep_alive = KeepAlive::client(10, start);
        assert!(!keep_alive.is_due(start + Duration::from_millis(9_999)));
        assert!(keep_alive.is_due(start + Duration::from_secs(10)));
        keep_alive.touch(start + Duration::from_secs(10));
        assert_eq!(keep_alive.deadline(), Some(start + Duration::from_secs(20)));
        assert_eq!(KeepAlive::client(0, start).deadline(), None);
    }
}
