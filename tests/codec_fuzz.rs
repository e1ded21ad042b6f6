//! The fuzz targets on stable Rust, over a bounded number of inputs from a fixed seed: bytes at random, and packets
//! that were mutated a little so that decoding gets deep before it fails.

#[path = "codec_malformed/rows.rs"]
mod rows;
#[path = "fuzz/targets.rs"]
mod targets;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use ferromq::codec::Version;

use rows::{ACCEPTED, ACKNOWLEDGEMENTS, CONNACK, CONNECT, DISCONNECT, FRAMES, PUBLISH, Row, SUBSCRIBE, UNSUBSCRIBE};

/// Inputs for each test: enough to take most branches, and done in seconds without optimisation.
const INPUTS: usize = 60_000;

#[test]
fn random_bytes_never_break_the_decoder() {
    run(targets::decode, |random| random.bytes(64));
}

#[test]
fn mutated_packets_never_break_the_decoder() {
    let seeds = seeds();
    run(targets::decode, |random| {
        let (version, packet) = random.pick(&seeds);
        let mut stream = mutate(packet.clone(), random);
        if random.below(4) == 0 {
            stream.extend(mutate(random.pick(&seeds).1.clone(), random));
        }
        let choice = u8::try_from(random.below(64)).expect("six bits") << 2 | version_choice(*version);
        stream.insert(0, choice);
        stream
    });
}

#[test]
fn a_publish_is_the_same_in_place_and_owned() {
    let seeds: Vec<_> = seeds().into_iter().filter(|(_, packet)| packet[0] >> 4 == 3 && packet.len() > 2).collect();
    run(targets::publish, |random| {
        let (version, packet) = random.pick(&seeds);
        let mut body = packet[2..].to_vec();
        for _ in 0..random.below(4) {
            mutate_once(&mut body, random);
        }
        let flags = if random.below(8) == 0 { random.byte() } else { packet[0] };
        [&[version_choice(*version), flags][..], &body].concat()
    });
}

#[test]
fn topics_are_judged_as_section_4_7_reads() {
    let parts =
        ["a", "b", "/", "/", "+", "#", "$", "$share/", "g/", "\n", "é", "\u{1}", "\u{FFFF}", "abcdefghijklmnop"];
    run(targets::topic, |random| (0..random.below(14)).map(|_| *random.pick(&parts)).collect::<String>().into_bytes());
}

#[test]
fn filters_match_as_section_4_7_reads() {
    let levels = |random: &mut Random, from: &[&'static str]| -> String {
        (0..=random.below(4)).map(|_| *random.pick(from)).collect::<Vec<_>>().join("/")
    };
    run(targets::topic, |random| {
        let filter = levels(random, &["a", "b", "", "+", "+", "#", "$a"]);
        let topic = levels(random, &["a", "a", "b", "", "$a"]);
        format!("{filter}\n{topic}").into_bytes()
    });
}

/// Feeds `target` with what `make` makes; a panic names the input.
fn run(target: fn(&[u8]), make: impl Fn(&mut Random) -> Vec<u8>) {
    let mut random = Random(0x9E37_79B9_7F4A_7C15);
    for _ in 0..INPUTS {
        let input = make(&mut random);
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| target(&input))) {
            eprintln!("the input: {input:02X?}");
            resume_unwind(panic);
        }
    }
}

/// Good packets and bad ones, with their versions.
fn seeds() -> Vec<(Version, Vec<u8>)> {
    let bad = [FRAMES, CONNECT, CONNACK, PUBLISH, ACKNOWLEDGEMENTS, SUBSCRIBE, UNSUBSCRIBE, DISCONNECT];
    let bad = bad.into_iter().flatten().map(|&(_, version, hex, _): &Row| (version, hex));
    let good = ACCEPTED.iter().map(|&(_, version, hex)| (version, hex));
    good.chain(bad).map(|(version, hex)| (version, bytes(hex))).collect()
}

fn bytes(hex: &str) -> Vec<u8> {
    hex.split_whitespace().map(|byte| u8::from_str_radix(byte, 16).expect("a byte in hex")).collect()
}

fn version_choice(version: Version) -> u8 {
    match version {
        Version::V3_1 => 0,
        Version::V3_1_1 => 1,
        Version::V5 => 2,
    }
}

/// Changes a packet in a few places, and mostly makes its remaining length fit again.
fn mutate(mut packet: Vec<u8>, random: &mut Random) -> Vec<u8> {
    for _ in 0..random.below(5) {
        mutate_once(&mut packet, random);
    }
    if random.below(8) > 0 && packet.len() >= 2 && packet.len() < 130 {
        packet[1] = u8::try_from(packet.len() - 2).expect("less than 128");
    }
    packet
}

fn mutate_once(bytes: &mut Vec<u8>, random: &mut Random) {
    let at = random.below(bytes.len() + 1);
    match random.below(6) {
        0 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
        1 if at < bytes.len() => bytes[at] = random.byte(),
        2 => bytes.insert(at, random.byte()),
        3 if at < bytes.len() => drop(bytes.remove(at)),
        4 => bytes.truncate(at),
        _ => {
            let part = bytes[at..(at + random.below(12)).min(bytes.len())].to_vec();
            bytes.splice(at..at, part);
        }
    }
}

/// Xorshift: the same inputs on every machine.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).expect("below a usize")
    }

    /// Any byte, but often one that means something: a length, a separator, a property.
    fn byte(&mut self) -> u8 {
        let any = (self.next() >> 32) as u8;
        if any & 1 == 0 { *self.pick(b"\x00\x01\x02\x03\x05\x0B\x26\x7F\x80\xFF/+#$") } else { any }
    }

    fn bytes(&mut self, len_max: usize) -> Vec<u8> {
        (0..self.below(len_max)).map(|_| self.byte()).collect()
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }
}
