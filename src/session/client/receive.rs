//! What the server sends: cut into packets, judged, and answered.

use std::{collections::VecDeque, time::Instant};

use bytes::Bytes;

use super::{
    AckHandle, AckMode, ClientSession, CloseReason, Event, Message, PUBACK, PUBCOMP, PUBREC, PUBREL, Phase, write_ack,
};
use crate::{
    codec::{
        Ack, Cut, DecodeError, Disconnect, Frame, Packet, PacketId, Properties, PublishRef, QoS, ReasonCode, Source,
        Text, frame::cut,
    },
    session::Received,
};

/// A fault of the server, and the code that tells it so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Violation {
    pub(super) reason: ReasonCode,
    pub(super) what: &'static str,
}

impl Violation {
    pub(super) const fn protocol(what: &'static str) -> Self {
        Self { reason: ReasonCode::ProtocolError, what }
    }
}

impl ClientSession {
    /// Takes all whole packets at the start of `input`; how many bytes that were. The rest must be given again, with
    /// what follows it. Received messages share `input`; they are events.
    pub fn handle_bytes(&mut self, now: Instant, input: &Bytes) -> usize {
        self.handle_bytes_with(now, input, &mut |events: &mut VecDeque<Event>, message| {
            events.push_back(Event::Message(message));
            None
        })
    }

    /// Like [`Self::handle_bytes`], but gives each message to `deliver` at once instead of making it an event: the way
    /// for many of them. What `deliver` returns is acknowledged with success.
    pub fn handle_bytes_to(
        &mut self,
        now: Instant,
        input: &Bytes,
        mut deliver: impl FnMut(Message) -> Option<AckHandle>,
    ) -> usize {
        self.handle_bytes_with(now, input, &mut |_: &mut VecDeque<Event>, message| deliver(message))
    }

    fn handle_bytes_with<D: Deliver>(&mut self, now: Instant, input: &Bytes, deliver: &mut D) -> usize {
        let mut at = 0;
        self.bytes_needed = 0;
        while matches!(self.phase, Phase::Connecting | Phase::Online) {
            let rest = input.get(at..).unwrap_or_default();
            let limit = self.options.limits.packet_bytes_max;
            match cut(rest, limit) {
                Ok(Cut::NeedMore(needed)) => {
                    self.bytes_needed = needed;
                    return at;
                }
                Ok(Cut::Frame(frame, used)) => {
                    at += used;
                    if let Err(fault) = self.handle_frame(now, frame, input, deliver) {
                        self.fail(fault);
                    }
                }
                Err(fault) => self.fail(fault.into()),
            }
        }
        // What follows the end of a connection is of no interest.
        input.len()
    }

    /// The application is done with a message. PUBACK or PUBREC leaves when those before it have; `reason` of 0x80 or
    /// above refuses it (MQTT 5). False if it no longer matters: the server will send the message again, or has
    /// forgotten it.
    pub fn acknowledge(&mut self, handle: AckHandle, reason: ReasonCode) -> bool {
        let matters = self.acks.acknowledge(handle, reason);
        self.send_acks();
        matters
    }

    #[inline]
    fn handle_frame<D: Deliver>(
        &mut self,
        now: Instant,
        frame: Frame<'_>,
        input: &Bytes,
        deliver: &mut D,
    ) -> Result<(), Fault> {
        let (version, limits) = (self.options.version, &self.options.limits);
        if frame.header >> 4 == PUBLISH_TYPE && self.phase == Phase::Online {
            let publish = PublishRef::decode(frame, version, limits)?;
            return Ok(self.handle_publish(frame, &publish, input, deliver)?);
        }
        if let (Some(ack), Phase::Online, false) = (bare_ack(frame), self.phase, frame.overlong) {
            return Ok(match frame.header {
                PUBACK => self.handle_puback(ack),
                PUBREC => self.handle_pubrec(ack),
                PUBCOMP => self.handle_pubcomp(ack),
                _ => self.handle_packet(now, Packet::PubRel(ack)),
            }?);
        }
        let packet = Packet::decode(frame, version, limits, &Source::Scratch)?;
        Ok(self.handle_packet(now, packet)?)
    }

    fn handle_packet(&mut self, now: Instant, packet: Packet) -> Result<(), Violation> {
        match packet {
            Packet::ConnAck(connack) => return self.handle_connack(now, *connack),
            Packet::Auth(auth) => return self.handle_auth(&auth),
            // [MQTT-3.2.0-1]
            _ if self.phase == Phase::Connecting => return Err(Violation::protocol("a packet before CONNACK")),
            Packet::PubAck(ack) => return self.handle_puback(ack),
            Packet::PubRec(ack) => return self.handle_pubrec(ack),
            Packet::PubComp(ack) => return self.handle_pubcomp(ack),
            Packet::PubRel(ack) => self.handle_pubrel(ack.packet_id),
            Packet::SubAck(ack) => return self.handle_suback(ack),
            Packet::UnsubAck(ack) => return self.handle_unsuback(ack),
            Packet::PingResp => self.answer_due = None,
            Packet::Disconnect(disconnect) => return self.handle_disconnect(disconnect),
            Packet::Publish(_)
            | Packet::Connect(_)
            | Packet::Subscribe(_)
            | Packet::Unsubscribe(_)
            | Packet::PingReq => return Err(Violation::protocol("a packet that only a client may send")),
        }
        Ok(())
    }

    fn handle_publish<D: Deliver>(
        &mut self,
        frame: Frame<'_>,
        publish: &PublishRef<'_>,
        input: &Bytes,
        deliver: &mut D,
    ) -> Result<(), Violation> {
        let mut message = Message::new(frame, publish, self.options.version, input).received_at(self.received_at_us);
        if let Some(alias) = publish.topic_alias
            && let Some(topic) = self.resolve_alias(alias, publish.topic)?
        {
            message = message.with_topic(topic);
        }
        if let Some(packet_id) = publish.packet_id {
            match self.receive(packet_id, publish)? {
                Taken::Before => return Ok(()),
                Taken::Now(ack) => message = message.with_ack(ack),
            }
        }
        if let Some(handle) = deliver(&mut self.events, message) {
            self.acknowledge(handle, ReasonCode::Success);
        }
        Ok(())
    }

    /// The topic behind the alias if the packet does not name it; a named one is remembered.
    fn resolve_alias(&mut self, alias: u16, topic: &str) -> Result<Option<Text>, Violation> {
        let violation =
            |reason| Violation { reason, what: "PUBLISH with a topic alias that was not set or not allowed" };
        if topic.is_empty() {
            return self.aliases_in.get(alias).cloned().map(Some).map_err(violation);
        }
        if self.aliases_in.get(alias).is_ok_and(|known| known.as_str() == topic) {
            return Ok(None);
        }
        let topic = Text::try_from(topic).map_err(|_| Violation::protocol("PUBLISH with an invalid topic"))?;
        self.aliases_in.set(alias, topic).map_err(violation)?;
        Ok(None)
    }

    /// Books a QoS 1 or 2 message.
    fn receive(&mut self, id: PacketId, publish: &PublishRef<'_>) -> Result<Taken, Violation> {
        let exactly_once = publish.qos == QoS::ExactlyOnce;
        match self.session.handle_publish(id, publish.qos, publish.dup) {
            Received::New if self.options.ack_mode == AckMode::Application => {
                Ok(Taken::Now(Some(self.acks.push(id, exactly_once))))
            }
            Received::New => {
                self.send_ack(id, exactly_once, ReasonCode::Success);
                Ok(Taken::Now(None))
            }
            // [MQTT-4.3.3-10] the same identifier is the same message until PUBREL, whatever DUP says.
            Received::Duplicate | Received::InUse if exactly_once => {
                self.acks.repeat(id);
                self.send_acks();
                Ok(Taken::Before)
            }
            Received::Duplicate | Received::InUse => {
                Err(Violation::protocol("QoS 1 PUBLISH with the packet identifier of an unreleased QoS 2 message"))
            }
            // [MQTT-3.3.4-9]
            Received::OverMaximum => Err(Violation {
                reason: ReasonCode::ReceiveMaximumExceeded,
                what: "more unacknowledged messages than the receive maximum",
            }),
        }
    }

    fn handle_pubrel(&mut self, packet_id: PacketId) {
        let is_known = self.session.handle_pubrel(packet_id);
        if is_known {
            self.record_released(packet_id);
        }
        let reason = if is_known { ReasonCode::Success } else { ReasonCode::PacketIdentifierNotFound };
        // [MQTT-4.3.3-11]
        write_ack(&mut self.out, self.options.version, PUBCOMP, packet_id.get(), reason);
    }

    fn handle_disconnect(&mut self, disconnect: Disconnect) -> Result<(), Violation> {
        if !self.is_v5() {
            return Err(Violation::protocol("DISCONNECT from a server before MQTT 5"));
        }
        let Disconnect { reason, properties } = disconnect;
        self.close(CloseReason::ServerDisconnect { reason, properties });
        Ok(())
    }

    fn send_acks(&mut self) {
        if self.phase != Phase::Online {
            return;
        }
        while let Some((handle, reason)) = self.acks.next() {
            self.send_ack(handle.packet_id, handle.exactly_once, reason);
        }
    }

    fn send_ack(&mut self, id: PacketId, exactly_once: bool, reason: ReasonCode) {
        let header = if exactly_once { PUBREC } else { PUBACK };
        if exactly_once && !(reason.is_error() && self.is_v5()) {
            self.record_received(id);
        }
        write_ack(&mut self.out, self.options.version, header, id.get(), reason);
        match (exactly_once, reason.is_error() && self.is_v5()) {
            (false, _) => self.session.acknowledged(id, QoS::AtLeastOnce),
            (true, true) => self.session.acknowledged(id, QoS::ExactlyOnce),
            (true, false) => {}
        }
    }

    /// The server is at fault: tell it (MQTT 5, once connected), and end the connection [MQTT-4.13.1-1].
    fn fail(&mut self, fault: Fault) {
        let reason = match fault {
            Fault::Violation(violation) => violation.reason,
            Fault::TooLarge { .. } => ReasonCode::PacketTooLarge,
        };
        if self.phase == Phase::Online && self.is_v5() {
            self.send_disconnect(reason, Properties::new());
        }
        self.close(match fault {
            Fault::Violation(Violation { reason, what }) => CloseReason::Protocol { reason, what },
            Fault::TooLarge { len, max } => CloseReason::PacketTooLarge { len, max },
        });
    }
}

/// Where received messages go; what comes back is acknowledged.
trait Deliver: FnMut(&mut VecDeque<Event>, Message) -> Option<AckHandle> {}

impl<F: FnMut(&mut VecDeque<Event>, Message) -> Option<AckHandle>> Deliver for F {}

/// An acknowledgement that is nothing but its packet identifier, as nearly all are.
#[inline]
fn bare_ack(frame: Frame<'_>) -> Option<Ack> {
    let (PUBACK | PUBREC | PUBREL | PUBCOMP, [high, low]) = (frame.header, frame.body) else { return None };
    Some(Ack::new(PacketId::new(u16::from_be_bytes([*high, *low]))?, ReasonCode::Success))
}

/// What a QoS 1 or 2 PUBLISH turned out to be.
enum Taken {
    /// New; with a handle if the application is to acknowledge it, else that is done.
    Now(Option<AckHandle>),
    /// A message that was handed out before.
    Before,
}

/// What ends a connection.
#[derive(Clone, Copy)]
enum Fault {
    Violation(Violation),
    TooLarge { len: u32, max: u32 },
}

impl From<Violation> for Fault {
    fn from(violation: Violation) -> Self {
        Self::Violation(violation)
    }
}

impl From<DecodeError> for Fault {
    fn from(error: DecodeError) -> Self {
        match error {
            DecodeError::PacketTooLarge { len, max } => Self::TooLarge { len, max },
            DecodeError::Violation { reason, what } => Self::Violation(Violation { reason, what }),
        }
    }
}

const PUBLISH_TYPE: u8 = 3;
