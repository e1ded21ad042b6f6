//! The last packets of a connection, one line each, for those who read why a test failed.

use std::{collections::VecDeque, fmt, sync::Arc, time::Instant};

use super::rule::Direction;

/// What is remembered of one connection.
#[derive(Debug)]
pub(super) struct Trace {
    lines_max: usize,
    began: Instant,
    record: ConnectionTrace,
    ring: VecDeque<String>,
    left_out: u64,
}

/// The last packets of one connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectionTrace {
    /// Client identifier; empty until CONNECT.
    pub client_id: String,
    /// Address of the peer.
    pub address: Arc<str>,
    /// Whether it is still connected.
    pub is_open: bool,
    /// One line for each packet: seconds since the connection was made, `>` to the broker or `<` to the client, the
    /// packet, and what faults did to it.
    pub lines: Vec<String>,
    /// Packets before the first line.
    pub left_out: u64,
}

impl Trace {
    pub(super) fn new(now: Instant, address: Arc<str>, lines_max: usize) -> Self {
        let record =
            ConnectionTrace { client_id: String::new(), address, is_open: true, lines: Vec::new(), left_out: 0 };
        Self { lines_max, began: now, record, ring: VecDeque::new(), left_out: 0 }
    }

    pub(super) fn is_on(&self) -> bool {
        self.lines_max > 0
    }

    pub(super) fn set_client(&mut self, client: &str) {
        client.clone_into(&mut self.record.client_id);
    }

    /// Notes a packet, and what faults did to it.
    pub(super) fn packet(&mut self, now: Instant, way: Direction, packet: String, notes: &[String]) {
        let notes = if notes.is_empty() { String::new() } else { format!("   [{}]", notes.join(", ")) };
        self.note(now, way, packet + &notes);
    }

    /// Notes something else.
    pub(super) fn note(&mut self, now: Instant, way: Direction, what: String) {
        if self.lines_max == 0 {
            return;
        }
        if self.ring.len() == self.lines_max {
            self.ring.pop_front();
            self.left_out += 1;
        }
        let arrow = match way {
            Direction::ToBroker => '>',
            Direction::ToClient => '<',
        };
        let seconds = now.saturating_duration_since(self.began).as_secs_f64();
        self.ring.push_back(format!("+{seconds:.3} {arrow} {what}"));
    }

    /// The connection has ended.
    pub(super) fn end(&mut self) {
        self.record.is_open = false;
    }

    /// What there is to read.
    pub(super) fn record(&self) -> ConnectionTrace {
        ConnectionTrace { lines: self.ring.iter().cloned().collect(), left_out: self.left_out, ..self.record.clone() }
    }
}

impl fmt::Display for ConnectionTrace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = if self.is_open { "open" } else { "closed" };
        write!(f, "{:?} at {} ({state})", self.client_id, self.address)?;
        if self.left_out > 0 {
            write!(f, "\n  ... {} packets before", self.left_out)?;
        }
        self.lines.iter().try_for_each(|line| write!(f, "\n  {line}"))
    }
}
