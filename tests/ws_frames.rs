//! WebSocket frames through the public interface: any framing and any split gives the same MQTT bytes, and every fault
//! its close code.
#![cfg(feature = "net")]

use ferromq::net::ws::{Client, Closed, FrameError, Role, Server, WsCodec, WsEgress, apply_mask, encode_header};
use proptest::prelude::*;

const KEY: [u8; 4] = [0xA1, 0x02, 0xC3, 0x7F];
const BINARY: u8 = 0x82;
const BINARY_MORE: u8 = 0x02;
const CONTINUE_MORE: u8 = 0x00;
const CONTINUE_LAST: u8 = 0x80;
const CLOSE: u8 = 0x88;
const PING: u8 = 0x89;
const PONG: u8 = 0x8A;

#[test]
fn packets_split_and_joined_by_frames_come_out_in_one_piece() {
    // [MQTT-6.0.0-2] a receiver must not assume that packets are aligned with frames.
    let mut wire = [
        frame(BINARY, b"\x10\x0cfirst ", Some(KEY)),
        frame(BINARY, b"", Some(KEY)),
        frame(BINARY_MORE, b"half", Some(KEY)),
        frame(CONTINUE_MORE, b" and ", Some([0; 4])),
        frame(CONTINUE_LAST, b"half", Some(KEY)),
    ]
    .concat();
    let mut out = Vec::new();
    let decoded = WsCodec::server(1024).decode(&mut wire, &mut out, ());
    assert_eq!(&wire[decoded.payload], b"\x10\x0cfirst half and half");
    assert_eq!((decoded.closed, out), (None, Vec::new()));
}

#[test]
fn a_ping_inside_a_fragmented_message_is_answered_and_a_pong_ignored() {
    let wire = [
        frame(BINARY_MORE, b"ab", Some(KEY)),
        frame(PING, b"are you there", Some(KEY)),
        frame(PONG, b"unasked", Some(KEY)),
        frame(CONTINUE_LAST, b"cd", Some(KEY)),
    ]
    .concat();
    let run = Run::of(WsCodec::server(1024), &wire, &[1000], ());
    assert_eq!(run.payload, b"abcd");
    assert_eq!(run.out, frame(PONG, b"are you there", None));
    let bytewise = Run::of(WsCodec::server(1024), &wire, &[1], ());
    assert_eq!(bytewise, run);
}

#[test]
fn a_flood_of_pings_is_answered_once_for_each_read() {
    let mut wire = Vec::new();
    for number in 0..1000_u32 {
        wire.extend(frame(PING, &number.to_be_bytes(), Some(KEY)));
    }
    let run = Run::of(WsCodec::server(1024), &wire, &[usize::MAX], ());
    assert_eq!(run.out, frame(PONG, &999_u32.to_be_bytes(), None));
}

#[test]
fn a_clients_replies_are_masked_under_the_key_given() {
    let run = Run::of(WsCodec::client(1024), &frame(PING, b"hello", None), &[3], KEY);
    assert_eq!(run.out, frame(PONG, b"hello", Some(KEY)));
    let run = Run::of(WsCodec::client(1024), &frame(CLOSE, &[0x03, 0xE8], None), &[3], KEY);
    assert_eq!(run.out, frame(CLOSE, &[0x03, 0xE8], Some(KEY)));
}

#[test]
fn a_close_is_echoed_after_the_payload_before_it_and_nothing_after_it_counts() {
    let wire = [
        frame(PING, b"late", Some(KEY)),
        frame(BINARY, b"\xe0\x00", Some(KEY)),
        frame(CLOSE, b"\x03\xe9going away", Some(KEY)),
        frame(BINARY, b"\xc0\x00", Some(KEY)),
    ]
    .concat();
    for cut in [1, 7, 1000] {
        let run = Run::of(WsCodec::server(1024), &wire, &[cut], ());
        assert_eq!(run.payload, b"\xe0\x00");
        assert_eq!(run.closed, Some(Closed::ByPeer(Some(1001))));
        assert!(run.out.ends_with(&frame(CLOSE, &[0x03, 0xE9], None)));
    }
    let run = Run::of(WsCodec::server(1024), &frame(CLOSE, b"", Some(KEY)), &[1000], ());
    assert_eq!((run.closed, run.out), (Some(Closed::ByPeer(None)), frame(CLOSE, b"", None)));
}

#[test]
fn after_closing_from_this_side_only_the_peers_close_counts() {
    let mut codec = WsCodec::server(1024);
    let mut out = Vec::new();
    codec.close(1001, "shutting down", &mut out, ());
    assert_eq!(out, frame(CLOSE, b"\x03\xe9shutting down", None));
    assert!(codec.is_closing());
    codec.close(1000, "again", &mut out, ());
    let wire = [frame(BINARY, b"late", Some(KEY)), frame(PING, b"", Some(KEY)), frame(CLOSE, b"\x03\xe9", Some(KEY))];
    let run = Run::of(codec, &wire.concat(), &[1], ());
    assert_eq!((run.payload, run.out), (Vec::new(), Vec::new()));
    assert_eq!(run.closed, Some(Closed::ByPeer(Some(1001))));
}

#[test]
fn every_fault_has_its_close_code_however_it_is_split() {
    let long = |marker: u8, len: &[u8]| [&[BINARY, 0x80 | marker], len, &KEY].concat();
    let masked = |first: u8, payload: &[u8]| frame(first, payload, Some(KEY));
    let faults = [
        // [MQTT-6.0.0-1]
        (masked(0x81, b"text"), FrameError::Text, 1003),
        (masked(0x01, b"text"), FrameError::Text, 1003),
        (frame(BINARY, b"plain", None), FrameError::Unmasked, 1002),
        (masked(BINARY | 0x40, b""), FrameError::ReservedBits, 1002),
        (masked(PING | 0x10, b""), FrameError::ReservedBits, 1002),
        (masked(0x83, b""), FrameError::Opcode(3), 1002),
        (masked(0x8F, b""), FrameError::Opcode(15), 1002),
        (masked(0x09, b"more"), FrameError::ControlFragmented, 1002),
        (masked(PING, &[0; 126]), FrameError::ControlTooLong, 1002),
        (masked(CONTINUE_LAST, b"x"), FrameError::ContinuationUnexpected, 1002),
        ([masked(BINARY, b"x"), masked(CONTINUE_LAST, b"x")].concat(), FrameError::ContinuationUnexpected, 1002),
        ([masked(BINARY_MORE, b""), masked(BINARY, b"x")].concat(), FrameError::ContinuationMissing, 1002),
        (long(126, &[0, 125]), FrameError::LengthNotMinimal, 1002),
        (long(127, &[0, 0, 0, 0, 0, 0, 0xFF, 0xFF]), FrameError::LengthNotMinimal, 1002),
        (long(127, &[0x80, 0, 0, 0, 0, 1, 0, 0]), FrameError::LengthNotMinimal, 1002),
        (long(126, &[4, 1]), FrameError::FrameTooLarge { len: 1025, max: 1024 }, 1009),
        (long(127, &[0, 0, 0, 1, 0, 0, 0, 0]), FrameError::FrameTooLarge { len: 1 << 32, max: 1024 }, 1009),
        (masked(CLOSE, &[3]), FrameError::CloseTruncated, 1002),
        (masked(CLOSE, &[0x03, 0xED]), FrameError::CloseCode(1005), 1002),
        (masked(CLOSE, &[0, 0]), FrameError::CloseCode(0), 1002),
        (masked(CLOSE, &[0x13, 0x88]), FrameError::CloseCode(5000), 1002),
        (masked(CLOSE, b"\x03\xe8\xff"), FrameError::CloseReason, 1007),
    ];
    for (fault, error, code) in faults {
        assert_eq!(error.close_code(), code);
        let wire = [masked(BINARY, b"before"), fault, masked(BINARY, b"after")].concat();
        for cut in [1, 3, 1000] {
            let run = Run::of(WsCodec::server(1024), &wire, &[cut], ());
            assert_eq!(run.closed, Some(Closed::Fault(error)), "cut every {cut}");
            assert!(run.payload.starts_with(b"before") && !run.payload.ends_with(b"after"), "{error}");
            assert_eq!((run.out[0], &run.out[2..4]), (CLOSE, &code.to_be_bytes()[..]), "{error}");
            assert_eq!(&run.out[4..], error.to_string().as_bytes());
        }
    }
    let run = Run::of(WsCodec::client(1024), &frame(BINARY, b"", Some(KEY)), &[1000], KEY);
    assert_eq!(run.closed, Some(Closed::Fault(FrameError::Masked)));
}

#[test]
fn a_fault_is_seen_before_the_rest_of_its_frame_arrives() {
    let run = Run::of(WsCodec::server(1024), &[0x81, 0x84], &[1000], ());
    assert_eq!(run.closed, Some(Closed::Fault(FrameError::Text)));
}

#[test]
fn a_single_frame_is_unmasked_where_it_lies() {
    let mut wire = frame(BINARY, &[5; 1000], Some(KEY));
    let decoded = WsCodec::server(1024).decode(&mut wire, &mut Vec::new(), ());
    assert_eq!(decoded.payload, 8..1008);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn any_framing_and_any_split_gives_the_same_bytes_to_the_server(
        messages in prop::collection::vec(message(), 0..8),
        cuts in cuts(),
    ) {
        let (wire, payload, pings) = build(&messages, true);
        let run = Run::of(WsCodec::server(1 << 20), &wire, &cuts, ());
        prop_assert_eq!(run.payload, payload);
        prop_assert_eq!(run.closed, None);
        prop_assert!(is_subsequence_of_pongs(&run.out, &pings));
    }

    #[test]
    fn any_framing_and_any_split_gives_the_same_bytes_to_the_client(
        messages in prop::collection::vec(message(), 0..8),
        cuts in cuts(),
    ) {
        let (wire, payload, _) = build(&messages, false);
        let run = Run::of(WsCodec::client(1 << 20), &wire, &cuts, [0; 4]);
        prop_assert_eq!((run.payload, run.closed), (payload, None));
    }

    #[test]
    fn no_bytes_make_the_decoder_panic_or_give_more_than_it_got(
        wire in prop::collection::vec(any::<u8>(), 0..300),
        cuts in cuts(),
    ) {
        let run = Run::of(WsCodec::server(100), &wire, &cuts, ());
        prop_assert!(run.payload.len() <= wire.len());
        Run::of(WsCodec::client(100), &wire, &cuts, KEY);
    }

    #[test]
    fn what_the_egress_writes_through_a_stuttering_socket_decodes_to_the_outbox(
        flushes in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..400), any::<bool>()), 1..12),
        rooms in prop::collection::vec(1_usize..300, 1..12),
        close: bool,
    ) {
        let (mut wire, sent) = stutter::<Server>(&flushes, &rooms, close, ());
        let decoded = WsCodec::client(1 << 20).decode(&mut wire, &mut Vec::new(), KEY);
        prop_assert_eq!(&wire[decoded.payload], &sent[..]);
        prop_assert_eq!(decoded.closed, close.then_some(Closed::ByPeer(Some(1000))));

        let (mut wire, sent) = stutter::<Client>(&flushes, &rooms, close, KEY);
        let decoded = WsCodec::server(1 << 20).decode(&mut wire, &mut Vec::new(), ());
        prop_assert_eq!(&wire[decoded.payload], &sent[..]);
        prop_assert_eq!(decoded.closed, close.then_some(Closed::ByPeer(Some(1000))));
    }
}

/// Everything that a decoder made of some bytes.
#[derive(Debug, PartialEq, Eq)]
struct Run {
    payload: Vec<u8>,
    out: Vec<u8>,
    closed: Option<Closed>,
}

impl Run {
    /// Decodes `wire` in pieces of the given sizes, over and over.
    fn of<R: Role>(mut codec: WsCodec<R>, wire: &[u8], cuts: &[usize], key: R::Key) -> Self {
        let mut run = Self { payload: Vec::new(), out: Vec::new(), closed: None };
        let (mut at, mut sizes) = (0, cuts.iter().cycle());
        while at < wire.len() {
            let end = wire.len().min(at.saturating_add(*sizes.next().expect("a cycle does not end")));
            let mut piece = wire[at..end].to_vec();
            let decoded = codec.decode(&mut piece, &mut run.out, key);
            run.payload.extend_from_slice(&piece[decoded.payload]);
            assert!(run.closed.is_none() || decoded.closed.is_none(), "ended twice");
            run.closed = run.closed.or(decoded.closed);
            at = end;
        }
        run
    }
}

/// A message as fragments, each followed by a ping or not.
type Message = Vec<(Vec<u8>, [u8; 4], Option<u8>)>;

fn message() -> impl Strategy<Value = Message> {
    let payload = prop_oneof![
        4 => prop::collection::vec(any::<u8>(), 0..200),
        1 => (65_000_usize..66_000).prop_map(|len| (0..len).map(|at| at as u8).collect()),
    ];
    prop::collection::vec((payload, any::<[u8; 4]>(), prop::option::of(any::<u8>())), 1..4)
}

fn cuts() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(prop_oneof![1_usize..20, 100_usize..70_000], 1..6)
}

/// The wire, the payload on it and the pings' payloads.
fn build(messages: &[Message], masked: bool) -> (Vec<u8>, Vec<u8>, Vec<u8>) {
    let (mut wire, mut payload, mut pings) = (Vec::new(), Vec::new(), Vec::new());
    for message in messages {
        for (at, (bytes, key, ping)) in message.iter().enumerate() {
            let opcode = if at == 0 { 0x2 } else { 0x0 };
            let fin = if at + 1 == message.len() { 0x80 } else { 0 };
            wire.extend(frame(fin | opcode, bytes, masked.then_some(*key)));
            payload.extend_from_slice(bytes);
            if let Some(ping) = ping {
                wire.extend(frame(PING, &[*ping], masked.then_some(*key)));
                pings.push(*ping);
            }
        }
    }
    (wire, payload, pings)
}

/// Whether `out` is pongs that answer some of the pings, in order, with the last one among them.
fn is_subsequence_of_pongs(out: &[u8], pings: &[u8]) -> bool {
    let mut left = pings.iter();
    let pongs: Vec<_> = out.chunks(3).collect();
    pongs.iter().all(|pong| pong.len() == 3 && pong[..2] == [PONG, 1] && left.any(|ping| *ping == pong[2]))
        && pongs.last().map(|pong| pong[2]) == pings.last().copied()
}

/// Sends the flushes, each perhaps with a pong falling due, through a socket with little room; returns the wire and
/// what was put into the outbox.
fn stutter<R: Role>(flushes: &[(Vec<u8>, bool)], rooms: &[usize], close: bool, key: R::Key) -> (Vec<u8>, Vec<u8>) {
    let (mut egress, mut outbox, mut wire, mut sent) = (WsEgress::new(), Vec::new(), Vec::new(), Vec::new());
    let masks = |header: &[u8]| header.len() > 2 && header[1] & 0x80 != 0;
    let mut rooms = rooms.iter().cycle();
    let mut write = |egress: &mut WsEgress, outbox: &mut Vec<u8>| {
        let flush = egress.flush::<R>(outbox.len(), key);
        if flush.begins && masks(flush.header.as_bytes()) {
            apply_mask(&mut outbox[..flush.payload], KEY);
        }
        let due = [flush.reply, flush.header.as_bytes(), &outbox[..flush.payload]].concat();
        let written = due.len().min(*rooms.next().expect("a cycle does not end"));
        wire.extend_from_slice(&due[..written]);
        let taken = egress.advance(written);
        outbox.drain(..taken);
        due.len()
    };
    for (bytes, ping) in flushes {
        outbox.extend_from_slice(bytes);
        sent.extend_from_slice(bytes);
        if *ping {
            egress.queue_reply(&frame(PONG, &bytes[..bytes.len().min(9)], masked_like::<R>()));
        }
        write(&mut egress, &mut outbox);
    }
    if close {
        egress.queue_reply(&frame(CLOSE, &[0x03, 0xE8], masked_like::<R>()));
    }
    while write(&mut egress, &mut outbox) > 0 {}
    (wire, sent)
}

fn masked_like<R: Role>() -> Option<[u8; 4]> {
    (size_of::<R::Key>() > 0).then_some(KEY)
}

/// A frame by the book, independent of the encoder except where it is a whole binary message.
fn frame(first: u8, payload: &[u8], mask: Option<[u8; 4]>) -> Vec<u8> {
    let mut frame = Vec::new();
    if first == BINARY {
        encode_header(payload.len(), &mut frame, mask);
    } else {
        let bit = if mask.is_some() { 0x80 } else { 0 };
        frame.push(first);
        match payload.len() {
            len @ 0..=125 => frame.push(bit | len as u8),
            len @ 126..=65_535 => frame.extend([&[bit | 0x7E], &(len as u16).to_be_bytes()[..]].concat()),
            len => frame.extend([&[bit | 0x7F], &(len as u64).to_be_bytes()[..]].concat()),
        }
        frame.extend(mask.iter().flatten());
    }
    let key = mask.unwrap_or_default();
    frame.extend(payload.iter().enumerate().map(|(at, byte)| byte ^ key[at % 4]));
    frame
}
