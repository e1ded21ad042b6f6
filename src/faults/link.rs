//! One connection with faults, without its sockets: bytes and time in, bytes out. Both directions are cut into packets,
//! each packet meets the rules, and what is left of it waits for its time.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    task::Waker,
    time::{Duration, Instant},
};

use bytes::Bytes;

use super::{
    line::Line,
    packet::{self, Facts, Memory},
    rule::{Action, Direction, Refusal, RuleBook, Stroke},
    trace::Trace,
};
use crate::codec::{
    ConnAck, Connect, Cut, Disconnect, Frame, Limits, Packet, PacketType, Properties, Property, ReasonCode, Version,
    frame::cut,
};

/// One connection.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) trace: Trace,
    /// The task that moves its bytes, to be told of changes.
    pub(super) waker: Option<Waker>,
    lines: [Line; 2],
    memories: [Memory; 2],
    version: Version,
    client: Option<Arc<str>>,
    /// Bytes are passed on in the pieces in which they come.
    is_opaque: [bool; 2],
    /// Of a packet that is too large to be kept: so much is still to come.
    passing: [usize; 2],
    /// Nothing passes any more, not even the end.
    pub(super) is_dead: bool,
    /// Both ends are to be closed at once, as if the network had.
    pub(super) is_reset: bool,
    /// What rules remember of this connection: bytes that passed, and when the line is free.
    cuts: HashMap<u64, u64>,
    free: HashMap<(u64, Direction), Instant>,
}

/// What to do next for one direction.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next<'a> {
    /// Forward this.
    Bytes(&'a [u8]),
    /// Tell the receiver that nothing more comes.
    End,
    /// Wait.
    Nothing,
}

/// What is left of a packet when the rules are done with it.
struct Fate {
    bytes: Bytes,
    copies: u32,
    due: Instant,
    overtaken: Option<(u32, Duration)>,
    is_dropped: bool,
    cut_at: Option<usize>,
    notes: Vec<String>,
}

impl Link {
    /// A fresh connection. `is_mqtt` tells whether it begins with CONNECT; WebSocket does not.
    pub(super) fn new(trace: Trace, is_mqtt: bool) -> Self {
        Self {
            trace,
            waker: None,
            lines: Default::default(),
            memories: Default::default(),
            version: Version::V3_1_1,
            client: None,
            is_opaque: [!is_mqtt; 2],
            passing: [0; 2],
            is_dead: false,
            is_reset: false,
            cuts: HashMap::new(),
            free: HashMap::new(),
        }
    }

    /// Client identifier, once it is known.
    pub(super) fn client(&self) -> Option<&str> {
        self.client.as_deref()
    }

    /// Takes bytes that a side has sent.
    pub(super) fn receive(&mut self, now: Instant, way: Direction, bytes: &[u8], rules: &mut RuleBook) {
        let at = way as usize;
        if self.is_dead || self.lines[at].is_cut || self.lines[at].is_closed {
            return;
        }
        if self.is_opaque[at] {
            self.packet(now, way, Bytes::copy_from_slice(bytes), &Facts::default(), rules);
            return;
        }
        let mut input = std::mem::take(&mut self.lines[at].partial);
        input.extend_from_slice(bytes);
        while !input.is_empty() {
            if self.passing[at] > 0 {
                let piece = input.split_to(self.passing[at].min(input.len())).freeze();
                self.passing[at] -= piece.len();
                self.lines[at].push(now, now, piece);
                continue;
            }
            let taken = match cut(&input, Limits::default().packet_bytes_max) {
                Ok(Cut::Frame(_, len)) => len,
                Ok(Cut::NeedMore(more)) if input.len() + more > PACKET_BYTES_MAX => {
                    self.trace.note(now, way, format!("packet of {} B passes unseen", input.len() + more));
                    self.passing[at] = input.len() + more;
                    continue;
                }
                Ok(Cut::NeedMore(_)) => break,
                Err(error) => {
                    self.trace.note(now, way, format!("not MQTT, passes unseen: {error}"));
                    self.is_opaque[at] = true;
                    input.len()
                }
            };
            let whole = input.split_to(taken).freeze();
            self.whole(now, way, whole, rules);
            if self.lines[at].is_cut {
                return;
            }
        }
        self.lines[at].partial = input;
    }

    /// A whole packet, or what cannot be cut.
    fn whole(&mut self, now: Instant, way: Direction, whole: Bytes, rules: &mut RuleBook) {
        let Ok(Cut::Frame(frame, _)) = cut(&whole, Limits::default().packet_bytes_max) else {
            return self.packet(now, way, whole, &Facts::default(), rules);
        };
        let [to_broker, to_client] = &mut self.memories;
        let (own, other) = match way {
            Direction::ToBroker => (to_broker, to_client),
            Direction::ToClient => (to_client, to_broker),
        };
        let facts = packet::facts(frame, self.version, own, other);
        match facts.packet {
            Some(PacketType::Connect) if way == Direction::ToBroker => {
                self.learn_connect(frame);
                if let Some(refusal) = rules.refusal(now, Some(self.client.as_deref().unwrap_or_default())) {
                    let line = packet::describe(frame, self.version);
                    return self.refuse(now, refusal, line);
                }
            }
            Some(PacketType::ConnAck) if way == Direction::ToClient => self.learn_assigned(frame),
            _ => {}
        }
        self.packet(now, way, whole.clone(), &facts, rules);
    }

    /// Puts a packet through the rules.
    fn packet(&mut self, now: Instant, way: Direction, bytes: Bytes, facts: &Facts, rules: &mut RuleBook) {
        let line = self.trace.is_on().then(|| self.describe(&bytes, facts));
        let strokes = rules.strokes(now, way, self.client.as_deref(), facts);
        let mut fate =
            Fate { bytes, copies: 0, due: now, overtaken: None, is_dropped: false, cut_at: None, notes: Vec::new() };
        for stroke in strokes {
            self.strike(now, way, &mut fate, &stroke, rules);
            if fate.is_dropped {
                break;
            }
        }
        if let Some(line) = line {
            self.trace.packet(now, way, line, &fate.notes);
        }
        self.forward(now, way, fate);
    }

    fn describe(&self, bytes: &Bytes, facts: &Facts) -> String {
        match cut(bytes, Limits::default().packet_bytes_max) {
            Ok(Cut::Frame(frame, _)) if facts.packet.is_some() => packet::describe(frame, self.version),
            _ => format!("{} B", bytes.len()),
        }
    }

    fn strike(&mut self, now: Instant, way: Direction, fate: &mut Fate, stroke: &Stroke, rules: &mut RuleBook) {
        match stroke.action {
            Action::Drop => {
                fate.is_dropped = true;
                fate.notes.push("dropped".into());
            }
            Action::Delay { by, jitter } => {
                let by = by + jitter.mul_f64(rules.unit());
                fate.due = fate.due.checked_add(by).unwrap_or(fate.due);
                fate.notes.push(format!("delayed {by:?}"));
            }
            Action::Duplicate { copies } => {
                fate.copies += copies;
                fate.notes.push(format!("sent {} times", 1 + copies));
            }
            Action::Reorder { by, within } => {
                fate.overtaken = Some((by, within));
                fate.notes.push(format!("after {by} others"));
            }
            Action::Corrupt { bits } => {
                fate.bytes = corrupt(&fate.bytes, bits, rules);
                fate.notes.push(format!("{bits} bits turned"));
            }
            Action::Cut { after_bytes } => {
                let passed = self.cuts.entry(stroke.rule).or_default();
                let left = after_bytes.saturating_sub(*passed);
                *passed += fate.bytes.len() as u64;
                if left >= fate.bytes.len() as u64 {
                    return;
                }
                fate.cut_at = Some(usize::try_from(left).unwrap_or(usize::MAX));
                fate.notes.push(format!("cut after {left} B"));
            }
            Action::FakeReason(reason) => {
                let Ok(Cut::Frame(frame, _)) = cut(&fate.bytes, Limits::default().packet_bytes_max) else { return };
                let Some(bytes) = packet::with_reason(frame, self.version, reason) else { return };
                fate.bytes = bytes.into();
                fate.notes.push(format!("says 0x{:02X}", reason.as_u8()));
            }
            Action::Throttle { rate } => {
                let free = self.free.entry((stroke.rule, way)).or_insert(now);
                let takes = Duration::try_from_secs_f64(fate.bytes.len() as f64 / rate).unwrap_or(Duration::MAX);
                let done = (*free).max(now).checked_add(takes).unwrap_or(now);
                *free = done;
                fate.due = fate.due.max(done);
            }
            Action::Partition | Action::Refuse(_) | Action::HalfOpen => return,
        }
        stroke.hit();
    }

    fn forward(&mut self, now: Instant, way: Direction, fate: Fate) {
        let line = &mut self.lines[way as usize];
        if fate.is_dropped {
            return;
        }
        if let Some(cut_at) = fate.cut_at {
            line.push(now, fate.due, fate.bytes.slice(..cut_at.min(fate.bytes.len())));
            line.partial.clear();
            line.is_cut = true;
            return;
        }
        match fate.overtaken {
            Some((by, within)) => line.push_after(by, now + within, fate.bytes.clone()),
            None => line.push(now, fate.due, fate.bytes.clone()),
        }
        for _ in 0..fate.copies {
            let mut copy = fate.bytes.to_vec();
            packet::mark_duplicate(&mut copy);
            line.push(now, fate.due, copy.into());
        }
    }

    fn learn_connect(&mut self, frame: Frame<'_>) {
        let Some(Packet::Connect(connect)) = packet::decode(frame, self.version) else {
            // A CONNECT that is refused is answered in its own version.
            let level = Connect::peek_level(frame.body).unwrap_or_default();
            self.version = if level >= Version::V5 as u8 { Version::V5 } else { Version::V3_1_1 };
            return;
        };
        self.version = connect.version;
        self.set_client(connect.client_id.as_str());
    }

    fn learn_assigned(&mut self, frame: Frame<'_>) {
        if self.client.as_deref().is_some_and(|client| !client.is_empty()) {
            return;
        }
        if let Some(Packet::ConnAck(connack)) = packet::decode(frame, self.version) {
            let assigned = connack.properties.iter().find_map(|property| match property {
                Property::AssignedClientIdentifier(id) => Some(id.as_str().to_owned()),
                _ => None,
            });
            if let Some(assigned) = assigned {
                self.set_client(&assigned);
            }
        }
    }

    fn set_client(&mut self, client: &str) {
        self.client = Some(Arc::from(client));
        self.trace.set_client(client);
    }

    /// Answers a CONNECT in the broker's place, or not at all.
    fn refuse(&mut self, now: Instant, refusal: Refusal, line: String) {
        self.trace.packet(now, Direction::ToBroker, line, &["refused".into()]);
        match refusal {
            Refusal::Reset => self.is_reset = true,
            Refusal::Answer(reason) => {
                let properties = Properties::new();
                self.say(now, &Packet::ConnAck(Box::new(ConnAck { session_present: false, reason, properties })));
            }
        }
    }

    /// Ends the connection with a reason, in the broker's place; before MQTT 5 without.
    pub(super) fn kick(&mut self, now: Instant, reason: ReasonCode) {
        self.lines[Direction::ToBroker as usize].discard();
        self.lines[Direction::ToClient as usize].discard();
        if self.version.is_v5() {
            self.say(now, &Packet::Disconnect(Disconnect::new(reason)));
        } else {
            self.is_reset = true;
        }
    }

    /// Says a last thing to the client.
    fn say(&mut self, now: Instant, packet: &Packet) {
        let mut bytes = Vec::new();
        if packet.encode(self.version, &mut bytes).is_err() {
            self.is_reset = true;
            return;
        }
        if let Ok(Cut::Frame(frame, _)) = cut(&bytes, u32::MAX) {
            let line = packet::describe(frame, self.version);
            self.trace.packet(now, Direction::ToClient, line, &["faked".into()]);
        }
        let line = &mut self.lines[Direction::ToClient as usize];
        line.push(now, now, bytes.into());
        line.is_cut = true;
    }

    /// From now on nothing passes.
    pub(super) fn kill(&mut self) {
        self.is_dead = true;
        self.lines.iter_mut().for_each(Line::discard);
    }

    /// Whether one direction is done and the other not.
    pub(super) fn is_ending(&self) -> bool {
        !self.is_dead && self.lines.iter().any(|line| line.is_closed)
    }

    /// A side has finished, or is gone.
    pub(super) fn finish(&mut self, now: Instant, way: Direction, what: &str) {
        self.trace.note(now, way, what.to_owned());
        self.lines[way as usize].is_finished = true;
    }

    /// A side takes nothing any more.
    pub(super) fn close(&mut self, way: Direction) {
        let line = &mut self.lines[way as usize];
        line.discard();
        line.is_closed = true;
    }

    /// What can be done now for one direction.
    pub(super) fn next(&mut self, now: Instant, way: Direction, rules: &RuleBook) -> Next<'_> {
        let is_held = self.is_dead || rules.is_partitioned(now, self.client.as_deref());
        let line = &mut self.lines[way as usize];
        if is_held || line.is_closed {
            return Next::Nothing;
        }
        line.release(now);
        if line.is_empty() && line.is_finished {
            return Next::End;
        }
        line.front(now).map_or(Next::Nothing, Next::Bytes)
    }

    /// So much of what [`Self::next`] gave has been forwarded.
    pub(super) fn advance(&mut self, way: Direction, count: usize) {
        self.lines[way as usize].advance(count);
    }

    /// Whether more may be read: little while it flows, and more while a fault holds it back.
    pub(super) fn wants_read(&self, now: Instant, way: Direction, rules: &RuleBook) -> bool {
        let line = &self.lines[way as usize];
        let is_held =
            rules.is_partitioned(now, self.client.as_deref()) || (!line.is_empty() && line.front(now).is_none());
        !line.is_finished && line.bytes() < if is_held { HELD_BYTES_MAX } else { FLOWING_BYTES_MAX }
    }

    /// When [`Self::next`] may have something new.
    pub(super) fn deadline(&self, now: Instant, rules: &RuleBook) -> Option<Instant> {
        if rules.is_partitioned(now, self.client.as_deref()) {
            return rules.next_end(now);
        }
        self.lines.iter().filter_map(Line::deadline).min()
    }

    /// Whether all that is left to do is to close both ends.
    pub(super) fn is_over(&self) -> bool {
        let is_done = |line: &Line| line.is_closed;
        let is_cut = |line: &Line| line.is_cut && line.is_empty();
        self.is_reset || self.lines.iter().any(is_cut) || self.lines.iter().all(is_done)
    }

    /// Whether both ends are gone from a dead connection.
    pub(super) fn is_buried(&self) -> bool {
        self.is_dead && self.lines.iter().all(|line| line.is_finished)
    }

    /// Packets, or pieces of them, that wait.
    pub(super) fn held(&self) -> usize {
        if self.is_dead { 0 } else { self.lines.iter().map(Line::len).sum() }
    }
}

/// Turns bits behind the fixed header, so that what is broken is the packet and not the stream; in packets that have
/// nothing there, anywhere.
fn corrupt(bytes: &Bytes, bits: u32, rules: &mut RuleBook) -> Bytes {
    let body = match cut(bytes, Limits::default().packet_bytes_max) {
        Ok(Cut::Frame(frame, len)) if !frame.body.is_empty() => len - frame.body.len(),
        _ => 0,
    };
    let mut bytes = bytes.to_vec();
    let len_bits = (bytes.len() - body) as u64 * 8;
    // Distinct ones, or two might undo each other.
    let mut turned = VecDeque::new();
    while len_bits > 0 && turned.len() < usize::try_from(u64::from(bits).min(len_bits)).unwrap_or(usize::MAX) {
        let bit = rules.number() % len_bits;
        if !turned.contains(&bit) {
            turned.push_back(bit);
        }
    }
    for bit in turned {
        if let Some(byte) = bytes.get_mut(body + usize::try_from(bit / 8).unwrap_or(usize::MAX)) {
            *byte ^= 1 << (bit % 8);
        }
    }
    bytes.into()
}

/// Larger packets are passed on as they come, and rules do not see them.
const PACKET_BYTES_MAX: usize = 16 << 20;

/// Bytes of one direction that wait for a receiver before the sender has to.
const FLOWING_BYTES_MAX: usize = 64 << 10;

/// Bytes of one direction that faults hold back before the sender has to wait.
const HELD_BYTES_MAX: usize = 16 << 20;
