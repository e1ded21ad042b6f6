//! An incremental decoder that owns its buffer, for clients and tests. A broker's shard, which reads every connection
//! into one scratch buffer, calls [`frame::cut`] itself.

use bytes::BytesMut;

use super::{
    Cut, DecodeError, Limits, Packet, Source, Version,
    frame::{self, Frame},
};

/// Bytes in, packets out. Payloads and strings share the buffer they came in.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: BytesMut,
    /// The fault that ended the stream: where the next packet starts is unknown after it.
    fault: Option<DecodeError>,
}

impl Decoder {
    /// A decoder without a buffer yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds bytes that have arrived.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The buffer, to read into: append only.
    pub fn buffer_mut(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// Bytes that have arrived and belong to no packet yet.
    pub fn buffered(&self) -> usize {
        self.buffer.len()
    }

    /// The next packet, or `None` until more bytes arrive. After an error every further call returns the same one.
    ///
    /// Before a packet is complete, no more is buffered than has arrived; what has arrived is bounded by
    /// `limits.packet_bytes_max` and the size of one read, because a larger packet fails at its header.
    pub fn poll(&mut self, version: Version, limits: &Limits) -> Result<Option<Packet>, DecodeError> {
        if let Some(fault) = &self.fault {
            return Err(fault.clone());
        }
        let polled = self.next_packet(version, limits);
        if let Err(fault) = &polled {
            self.fault = Some(fault.clone());
            self.buffer = BytesMut::new();
        }
        polled
    }

    fn next_packet(&mut self, version: Version, limits: &Limits) -> Result<Option<Packet>, DecodeError> {
        let (header, body_len, overlong, whole) = match frame::cut(&self.buffer, limits.packet_bytes_max)? {
            Cut::Frame(frame, whole) => (frame.header, frame.body.len(), frame.overlong, whole),
            Cut::NeedMore(missing) => {
                self.make_room(missing);
                return Ok(None);
            }
        };
        let bytes = self.buffer.split_to(whole).freeze();
        let (_, body) = bytes.split_at(whole - body_len);
        Packet::decode(Frame { header, body, overlong }, version, limits, &Source::Shared(&bytes)).map(Some)
    }

    /// Prepares for the rest of a packet, but for no more than [`ROOM_MAX`] at once: a header alone must not make the
    /// receiver spend memory. An idle decoder gives its buffer back.
    fn make_room(&mut self, missing: usize) {
        if self.buffer.is_empty() {
            self.buffer = BytesMut::new();
        } else {
            self.buffer.reserve(missing.min(ROOM_MAX));
        }
    }
}

/// Bytes reserved ahead of their arrival. A read of this size already amortises its system call.
const ROOM_MAX: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::ReasonCode;

    const PUBLISH: &[u8] = &[0x30, 9, 0, 3, b'a', b'/', b'b', b'd', b'a', b't', b'a'];

    #[test]
    fn packets_come_out_whole_whatever_the_pieces() {
        let mut decoder = Decoder::new();
        let mut packets = Vec::new();
        for byte in [PUBLISH, &[0xC0, 0], PUBLISH].concat() {
            decoder.feed(&[byte]);
            packets.extend(decoder.poll(Version::V3_1_1, &Limits::default()).unwrap());
        }
        assert_eq!(packets.len(), 3);
        assert_eq!(packets[0], packets[2]);
        assert_eq!(packets[1], Packet::PingReq);
        assert_eq!(decoder.buffered(), 0);
    }

    #[test]
    fn a_payload_shares_the_buffer_it_came_in() {
        let mut decoder = Decoder::new();
        decoder.feed(PUBLISH);
        let start = decoder.buffer_mut().as_ptr();
        let Ok(Some(Packet::Publish(publish))) = decoder.poll(Version::V3_1_1, &Limits::default()) else {
            panic!("a PUBLISH")
        };
        assert_eq!(publish.payload.as_ptr(), start.wrapping_add(7));
    }

    #[test]
    fn a_fault_ends_the_stream_for_good() {
        let mut decoder = Decoder::new();
        decoder.feed(&[0xC0, 1, 0]);
        let fault = decoder.poll(Version::V5, &Limits::default()).unwrap_err();
        assert_eq!(fault.reason(), ReasonCode::MalformedPacket);
        decoder.feed(&[0xC0, 0]);
        assert_eq!(decoder.poll(Version::V5, &Limits::default()), Err(fault));
    }

    #[test]
    fn a_header_alone_costs_little_memory_and_idleness_none() {
        let mut decoder = Decoder::new();
        decoder.feed(&[0x30, 0xFF, 0xFF, 0xFF, 0x7F]);
        assert_eq!(decoder.poll(Version::V5, &Limits::default()), Ok(None));
        assert!(decoder.buffer_mut().capacity() <= 2 * ROOM_MAX);
        let mut decoder = Decoder::new();
        decoder.feed(&[0xD0, 0]);
        assert_eq!(decoder.poll(Version::V5, &Limits::default()), Ok(Some(Packet::PingResp)));
        assert_eq!(decoder.poll(Version::V5, &Limits::default()), Ok(None));
        assert_eq!(decoder.buffer_mut().capacity(), 0);
    }
}
