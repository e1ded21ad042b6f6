//! Keep-alive, both ends: when the server gives a client up, and when a client pings.

use std::time::{Duration, Instant};

/// When a silent peer is given up or pinged. Activity only writes a time; the timer looks at it when it fires.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeepAlive {
    interval: Option<Duration>,
    last: Instant,
}

impl KeepAlive {
    /// A server's view: the client is given up after 1.5 times `seconds` without a packet [MQTT-3.1.2-22]. 0: never.
    pub fn server(seconds: u16, now: Instant) -> Self {
        Self { interval: interval(seconds).map(|interval| interval * 3 / 2), last: now }
    }

    /// A client's view: it pings after `seconds` without having sent a packet [MQTT-3.1.2-20]. 0: never.
    pub fn client(seconds: u16, now: Instant) -> Self {
        Self { interval: interval(seconds), last: now }
    }

    /// Something was received (server) or sent (client).
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
    fn a_server_waits_one_and_a_half_times_the_keep_alive() {
        let start = Instant::now();
        let mut keep_alive = KeepAlive::server(10, start);
        assert!(!keep_alive.is_due(start + Duration::from_millis(14_999)));
        assert!(keep_alive.is_due(start + Duration::from_secs(15)));
        keep_alive.touch(start + Duration::from_secs(15));
        assert_eq!(keep_alive.deadline(), Some(start + Duration::from_secs(30)));
        assert_eq!(KeepAlive::server(0, start).deadline(), None);
    }
}
