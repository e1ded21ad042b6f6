//! Frames: what was read becomes the MQTT byte stream, in the memory it was read into.
//!
//! MQTT packets need not align with frames [MQTT-6.0.0-2], so payload is handed on as it comes and no frame is ever
//! gathered. What must be gathered is small: the header of a data frame, or a whole control frame (131 bytes), when a
//! read ends inside it. Only then is there a buffer.

use std::marker::PhantomData;
use std::ops::Range;

use super::{Client, FrameError, Role, Server};

/// One direction in, and the replies that control frames ask for.
#[derive(Debug)]
pub struct WsCodec<R> {
    /// Start of a data frame's header or of a control frame.
    partial: Option<Box<Partial>>,
    /// Payload bytes of the current data frame still to come.
    frame_left: u32,
    /// The current frame's masking key, rotated to the next byte.
    mask: [u8; 4],
    frame_bytes_max: u32,
    /// A message's final frame is still to come.
    fragmented: bool,
    phase: Phase,
    role: PhantomData<R>,
}

/// What one read contained.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decoded {
    /// Where in the input the MQTT bytes now lie, in one piece. They come before the end, if there is one.
    pub payload: Range<usize>,
    /// The WebSocket is over: flush the replies, then close the connection.
    pub closed: Option<Closed>,
}

/// How a WebSocket ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Closed {
    /// The peer sent a close frame, with this status code if any; it is answered unless it is itself the answer.
    ByPeer(Option<u16>),
    /// The peer broke the rules and is told so.
    Fault(FrameError),
}

impl WsCodec<Server> {
    /// The broker's end of an upgraded connection.
    pub const fn server(frame_bytes_max: u32) -> Self {
        Self::new(frame_bytes_max)
    }
}

impl WsCodec<Client> {
    /// The client's end of an upgraded connection.
    pub const fn client(frame_bytes_max: u32) -> Self {
        Self::new(frame_bytes_max)
    }
}

impl<R: Role> WsCodec<R> {
    const fn new(frame_bytes_max: u32) -> Self {
        Self {
            partial: None,
            frame_left: 0,
            mask: [0; 4],
            frame_bytes_max,
            fragmented: false,
            phase: Phase::Open,
            role: PhantomData,
        }
    }

    /// Takes all of `raw`, what was just read, and leaves the MQTT bytes in it at the range returned.
    ///
    /// A reply, if one is due, is appended to `out` as a whole frame under `key`: at most one for each call, since the
    /// last of several pings may answer for all (RFC 6455 section 5.5.3) and a close ends all. So a flood of pings is
    /// not a flood of pongs. The caller must not write it inside another frame; see [`super::WsEgress`].
    pub fn decode(&mut self, raw: &mut [u8], out: &mut Vec<u8>, key: R::Key) -> Decoded {
        let mut read = Read { raw, at: 0, payload: 0..0 };
        let mut pong = None;
        let mut closed = None;
        while self.phase != Phase::Closed {
            if self.frame_left > 0 {
                let Some(taken) = read.unmask(self.frame_left, &mut self.mask, self.phase == Phase::Open) else {
                    break;
                };
                self.frame_left -= taken;
                continue;
            }
            match self.next_unit(&mut read) {
                Ok(None) => break,
                Ok(Some(Unit::Data { len, mask, last })) => {
                    (self.frame_left, self.mask, self.fragmented) = (len, mask, !last);
                }
                Ok(Some(Unit::Ping(payload))) => pong = Some(payload),
                Ok(Some(Unit::Pong)) => {}
                Ok(Some(Unit::Close(code))) => closed = Some(self.end(Closed::ByPeer(code), out, key)),
                Err(fault) => closed = Some(self.end(Closed::Fault(fault), out, key)),
            }
        }
        if let (Some(payload), Phase::Open) = (pong, self.phase) {
            encode_control(Opcode::Pong, payload.bytes(), R::mask(key), out);
        }
        Decoded { payload: read.payload, closed }
    }

    /// Begins to close from this side: appends a close frame, and from here on drops payload until the peer's close
    /// arrives. Nothing but the rest of a frame already begun may be written around it, and nothing after it.
    pub fn close(&mut self, code: u16, reason: &str, out: &mut Vec<u8>, key: R::Key) {
        if self.phase == Phase::Open {
            self.phase = Phase::Closing;
            encode_close(code, reason, R::mask(key), out);
        }
    }

    /// Whether a close frame has been sent or received.
    pub fn is_closing(&self) -> bool {
        self.phase != Phase::Open
    }

    /// Ends it, and says so to a peer that has not been told.
    fn end(&mut self, closed: Closed, out: &mut Vec<u8>, key: R::Key) -> Closed {
        if self.phase == Phase::Open {
            match closed {
                Closed::ByPeer(Some(code)) => encode_close(code, "", R::mask(key), out),
                Closed::ByPeer(None) => encode_control(Opcode::Close, &[], R::mask(key), out),
                Closed::Fault(fault) => encode_close(fault.close_code(), &fault.to_string(), R::mask(key), out),
            }
        }
        self.phase = Phase::Closed;
        self.partial = None;
        closed
    }

    /// The next data frame header or control frame, or `None` when the read ends inside it.
    fn next_unit(&mut self, read: &mut Read<'_>) -> Result<Option<Unit>, FrameError> {
        let Some(mut partial) = self.partial.take() else {
            let rest = read.rest();
            match self.parse(rest)? {
                Parsed::Unit(unit, len) => {
                    read.at += len;
                    return Ok(Some(unit));
                }
                Parsed::NeedMore(_) if rest.is_empty() => {}
                Parsed::NeedMore(_) => {
                    let mut partial = Box::new(Partial::EMPTY);
                    partial.extend(rest);
                    read.at = read.raw.len();
                    self.partial = Some(partial);
                }
            }
            return Ok(None);
        };
        loop {
            match self.parse(partial.bytes())? {
                Parsed::Unit(unit, _) => return Ok(Some(unit)),
                Parsed::NeedMore(missing) => {
                    let rest = read.rest();
                    let taken = missing.min(rest.len());
                    partial.extend(&rest[..taken]);
                    read.at += taken;
                    if taken < missing {
                        self.partial = Some(partial);
                        return Ok(None);
                    }
                }
            }
        }
    }

    /// Judges the start of a frame as soon as its bytes are there, so that a fault is seen before the rest arrives.
    fn parse(&self, bytes: &[u8]) -> Result<Parsed, FrameError> {
        let &[first, second, ..] = bytes else { return Ok(Parsed::NeedMore(2 - bytes.len())) };
        let opcode = self.check_start(first, second)?;
        let len_bytes = match second & 0x7F {
            LEN_16 => 2,
            LEN_64 => 8,
            _ => 0,
        };
        let header_len = 2 + len_bytes + if R::PEER_MASKS { 4 } else { 0 };
        let len = match (second & 0x7F, bytes.get(2..2 + len_bytes)) {
            (_, None) => return Ok(Parsed::NeedMore(header_len - bytes.len())),
            (short, Some([])) => u64::from(short),
            (_, Some(long)) => long.iter().fold(0, |len, &byte| len << 8 | u64::from(byte)),
        };
        // The longer forms begin where the shorter ones end; the top bit of the longest is 0.
        if (len_bytes == 2 && len < 126) || (len_bytes == 8 && (len <= 0xFFFF || len >> 63 == 1)) {
            return Err(FrameError::LengthNotMinimal);
        }
        if len > u64::from(self.frame_bytes_max) && !opcode.is_control() {
            return Err(FrameError::FrameTooLarge { len, max: self.frame_bytes_max });
        }
        let whole = header_len + if opcode.is_control() { len as usize } else { 0 };
        if bytes.len() < whole {
            return Ok(Parsed::NeedMore(whole - bytes.len()));
        }
        let mask = if R::PEER_MASKS { last_four(&bytes[..header_len]) } else { [0; 4] };
        let unit = if opcode.is_control() {
            let mut payload = ControlPayload::new(&bytes[header_len..whole]);
            apply_mask(payload.bytes_mut(), mask);
            control_unit(opcode, payload)?
        } else {
            Unit::Data { len: len as u32, mask, last: first & FIN != 0 }
        };
        Ok(Parsed::Unit(unit, whole))
    }

    /// What the first two bytes alone can do wrong (RFC 6455 section 5.2).
    fn check_start(&self, first: u8, second: u8) -> Result<Opcode, FrameError> {
        if first & 0x70 != 0 {
            return Err(FrameError::ReservedBits);
        }
        let opcode = Opcode::from_bits(first & 0x0F)?;
        match (second & MASKED != 0, R::PEER_MASKS) {
            (false, true) => return Err(FrameError::Unmasked),
            (true, false) => return Err(FrameError::Masked),
            _ => {}
        }
        match opcode {
            Opcode::Continuation if !self.fragmented => Err(FrameError::ContinuationUnexpected),
            Opcode::Binary if self.fragmented => Err(FrameError::ContinuationMissing),
            // [MQTT-6.0.0-1] any data frame that is not binary ends the connection.
            Opcode::Text => Err(FrameError::Text),
            _ if opcode.is_control() && first & FIN == 0 => Err(FrameError::ControlFragmented),
            _ if opcode.is_control() && second & 0x7F > CONTROL_BYTES_MAX as u8 => Err(FrameError::ControlTooLong),
            opcode => Ok(opcode),
        }
    }
}

/// The longest MQTT packet in one frame: a limit that no sender needs to exceed. Nothing is buffered either way.
pub const FRAME_BYTES_MAX: u32 = 268_435_455 + 5;

/// A binary frame's header, for a vectored write in front of payload that stays where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHeader {
    bytes: [u8; HEADER_BYTES_MAX],
    start: u8,
    end: u8,
}

impl FrameHeader {
    pub(super) const EMPTY: Self = Self { bytes: [0; HEADER_BYTES_MAX], start: 0, end: 0 };

    /// The header of one whole binary message of `len` bytes.
    pub fn binary(len: usize, mask: Option<[u8; 4]>) -> Self {
        Self::new(Opcode::Binary, len, mask)
    }

    /// The bytes to write.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[usize::from(self.start)..usize::from(self.end)]
    }

    /// What is left when all but `left` bytes have been written.
    pub(super) fn last(self, left: u8) -> Self {
        Self { start: self.end - left, ..self }
    }

    fn new(opcode: Opcode, len: usize, mask: Option<[u8; 4]>) -> Self {
        let mut header = Self::EMPTY;
        header.push(&[FIN | opcode as u8]);
        let mask_bit = if mask.is_some() { MASKED } else { 0 };
        match len {
            0..=125 => header.push(&[mask_bit | len as u8]),
            126..=0xFFFF => {
                header.push(&[mask_bit | LEN_16]);
                header.push(&(len as u16).to_be_bytes());
            }
            _ => {
                header.push(&[mask_bit | LEN_64]);
                header.push(&(len as u64).to_be_bytes());
            }
        }
        if let Some(key) = mask {
            header.push(&key);
        }
        header
    }

    fn push(&mut self, bytes: &[u8]) {
        let at = usize::from(self.end);
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
        self.end += bytes.len() as u8;
    }
}

/// Appends the header of one binary frame that wraps `len` bytes: a whole flush of any number of MQTT packets. With a
/// `mask` (the client's case) the payload must go through [`apply_mask`] under the same key.
pub fn encode_header(len: usize, out: &mut Vec<u8>, mask: Option<[u8; 4]>) {
    out.extend_from_slice(FrameHeader::binary(len, mask).as_bytes());
}

/// Masks or unmasks `bytes`, whose first byte is at a multiple of 4 in its frame; the operation is its own inverse.
pub fn apply_mask(bytes: &mut [u8], mask: [u8; 4]) {
    if mask == [0; 4] {
        return;
    }
    let [a, b, c, d] = mask;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (words, rest) = bytes.as_chunks_mut::<8>();
    for word in words {
        *word = (u64::from_ne_bytes(*word) ^ wide).to_ne_bytes();
    }
    for (byte, key) in rest.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= key;
    }
}

/// Where a connection stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Open,
    /// This side has sent a close frame and waits for the peer's.
    Closing,
    Closed,
}

/// The opcodes of RFC 6455 section 11.8.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Opcode {
    Continuation = 0x0,
    Text = 0x1,
    Binary = 0x2,
    Close = 0x8,
    Ping = 0x9,
    Pong = 0xA,
}

impl Opcode {
    fn from_bits(bits: u8) -> Result<Self, FrameError> {
        Ok(match bits {
            0x0 => Self::Continuation,
            0x1 => Self::Text,
            0x2 => Self::Binary,
            0x8 => Self::Close,
            0x9 => Self::Ping,
            0xA => Self::Pong,
            _ => return Err(FrameError::Opcode(bits)),
        })
    }

    const fn is_control(self) -> bool {
        self as u8 & 0x8 != 0
    }
}

/// What is judged in one piece.
enum Unit {
    /// A data frame's header.
    Data {
        len: u32,
        mask: [u8; 4],
        last: bool,
    },
    Ping(ControlPayload),
    Pong,
    Close(Option<u16>),
}

enum Parsed {
    /// A unit and its length.
    Unit(Unit, usize),
    /// At least this many bytes are missing, and all of them belong to the unit.
    NeedMore(usize),
}

/// The read in progress: what was taken, and the payload found so far.
struct Read<'a> {
    raw: &'a mut [u8],
    at: usize,
    payload: Range<usize>,
}

impl Read<'_> {
    fn rest(&self) -> &[u8] {
        &self.raw[self.at..]
    }

    /// Unmasks up to `frame_left` bytes and puts them behind the payload found before; `None` if nothing is left.
    /// The first piece stays where it is, so a read that lies within one frame moves nothing.
    fn unmask(&mut self, frame_left: u32, mask: &mut [u8; 4], keep: bool) -> Option<u32> {
        let end = self.raw.len().min(self.at + frame_left as usize);
        let piece = self.at..end;
        if piece.is_empty() {
            return None;
        }
        if keep {
            apply_mask(&mut self.raw[piece.clone()], *mask);
            if self.payload.is_empty() {
                self.payload = piece.clone();
            } else {
                self.raw.copy_within(piece.clone(), self.payload.end);
                self.payload.end += piece.len();
            }
        }
        mask.rotate_left(piece.len() % 4);
        self.at = end;
        Some(piece.len() as u32)
    }
}

/// The bytes of a unit that a read ended in.
#[derive(Debug)]
struct Partial {
    bytes: [u8; UNIT_BYTES_MAX],
    len: u8,
}

impl Partial {
    const EMPTY: Self = Self { bytes: [0; UNIT_BYTES_MAX], len: 0 };

    fn bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    fn extend(&mut self, more: &[u8]) {
        let at = usize::from(self.len);
        self.bytes[at..at + more.len()].copy_from_slice(more);
        self.len += more.len() as u8;
    }
}

/// A control frame's payload.
struct ControlPayload {
    bytes: [u8; CONTROL_BYTES_MAX],
    len: u8,
}

impl ControlPayload {
    fn new(payload: &[u8]) -> Self {
        let mut bytes = [0; CONTROL_BYTES_MAX];
        bytes[..payload.len()].copy_from_slice(payload);
        Self { bytes, len: payload.len() as u8 }
    }

    fn bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[..usize::from(self.len)]
    }
}

fn control_unit(opcode: Opcode, payload: ControlPayload) -> Result<Unit, FrameError> {
    match opcode {
        Opcode::Ping => Ok(Unit::Ping(payload)),
        Opcode::Close => close_code(payload.bytes()).map(Unit::Close),
        _ => Ok(Unit::Pong),
    }
}

/// The status code of a close frame's payload (RFC 6455 sections 5.5.1 and 7.4).
fn close_code(payload: &[u8]) -> Result<Option<u16>, FrameError> {
    let (code, reason) = match payload {
        [] => return Ok(None),
        [_] => return Err(FrameError::CloseTruncated),
        [high, low, reason @ ..] => (u16::from_be_bytes([*high, *low]), reason),
    };
    // 1004 to 1006 and 1015 are never sent; 1012 to 1014 were registered after the RFC.
    if !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
        return Err(FrameError::CloseCode(code));
    }
    if std::str::from_utf8(reason).is_err() {
        return Err(FrameError::CloseReason);
    }
    Ok(Some(code))
}

fn encode_close(code: u16, reason: &str, mask: Option<[u8; 4]>, out: &mut Vec<u8>) {
    let reason = &reason[..reason.floor_char_boundary(CONTROL_BYTES_MAX - 2)];
    let mut payload = Vec::with_capacity(2 + reason.len());
    payload.extend_from_slice(&code.to_be_bytes());
    payload.extend_from_slice(reason.as_bytes());
    encode_control(Opcode::Close, &payload, mask, out);
}

fn encode_control(opcode: Opcode, payload: &[u8], mask: Option<[u8; 4]>, out: &mut Vec<u8>) {
    out.extend_from_slice(FrameHeader::new(opcode, payload.len(), mask).as_bytes());
    let start = out.len();
    out.extend_from_slice(payload);
    apply_mask(&mut out[start..], mask.unwrap_or_default());
}

fn last_four(header: &[u8]) -> [u8; 4] {
    *header.last_chunk().expect("a masked header is at least six bytes")
}

const FIN: u8 = 0x80;
const MASKED: u8 = 0x80;

/// The length follows in two bytes.
const LEN_16: u8 = 0x7E;
/// The length follows in eight bytes.
const LEN_64: u8 = 0x7F;

/// RFC 6455 section 5.5.
const CONTROL_BYTES_MAX: usize = 125;

/// Two bytes, eight of length, four of mask.
const HEADER_BYTES_MAX: usize = 14;

/// A masked control frame is the longest unit.
const UNIT_BYTES_MAX: usize = 2 + 4 + CONTROL_BYTES_MAX;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_connection_keeps_at_most_48_bytes() {
        let idle = size_of::<WsCodec<Server>>() + size_of::<super::super::WsEgress>();
        assert!(idle <= 48, "{idle}");
    }

    #[test]
    fn mask_of_every_length_and_phase_is_bytewise_xor() {
        let key = [0x11, 0x22, 0x43, 0x84];
        for len in 0..40_usize {
            let plain: Vec<u8> = (0..len as u8).collect();
            let mut masked = plain.clone();
            apply_mask(&mut masked, key);
            for (at, (&masked, &plain)) in masked.iter().zip(&plain).enumerate() {
                assert_eq!(masked, plain ^ key[at % 4]);
            }
        }
    }

    #[test]
    fn headers_use_the_shortest_length() {
        for (len, want) in [
            (0, vec![0x82, 0]),
            (125, vec![0x82, 125]),
            (126, vec![0x82, 126, 0, 126]),
            (0xFFFF, vec![0x82, 126, 0xFF, 0xFF]),
            (0x1_0000, vec![0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
        ] {
            assert_eq!(FrameHeader::binary(len, None).as_bytes(), want);
        }
        assert_eq!(FrameHeader::binary(5, Some([1, 2, 3, 4])).as_bytes(), [0x82, 0x85, 1, 2, 3, 4]);
    }

    #[test]
    fn a_long_close_reason_is_cut_at_a_character() {
        let mut out = Vec::new();
        encode_close(1000, &"é".repeat(100), None, &mut out);
        assert_eq!(out[1], 2 + 122);
        assert!(std::str::from_utf8(&out[4..]).is_ok());
    }
}
