//! Cost of one packet in the codec: nanoseconds to decode it, in place and owned, and to encode it.
//!
//! `publish_ref` is what a broker pays for each message that arrives, `head` what it pays for each encoding that it
//! shares among subscribers; the owned forms are the client's.

use std::hint::black_box;

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use ferromq::codec::{
    Ack, Connect, Cut, Frame, Limits, Packet, PacketId, PacketType, Properties, Property, Publish, PublishHead,
    PublishRef, QoS, ReasonCode, Source, Text, TopicFilter, TopicName, Version, Will, frame, topic,
};

fn publish(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("publish");
    for case in cases() {
        let (version, packet) = (case.version, Packet::Publish(case.publish.clone()));
        let encoded = encode(&packet, version);
        let body = frame_of(&encoded);
        group.bench_function(BenchmarkId::new("publish_ref", case.name), |bencher| {
            bencher.iter(|| PublishRef::decode(black_box(frame_of(&encoded)), version, &Limits::default()));
        });
        group.bench_function(BenchmarkId::new("decode_shared", case.name), |bencher| {
            let source = Source::Shared(&encoded);
            bencher.iter(|| Packet::decode(black_box(body), version, &Limits::default(), &source));
        });
        let mut out = Vec::with_capacity(2048);
        group.bench_function(BenchmarkId::new("encode", case.name), |bencher| {
            bencher.iter(|| {
                out.clear();
                black_box(&case.publish).encode(version, &mut out)
            });
        });
        let view = PublishRef::decode(body, version, &Limits::default()).expect("a valid PUBLISH");
        let mut properties = Vec::new();
        view.forward_properties(&mut properties);
        let head = PublishHead { qos: view.qos, topic: view.topic, properties: &properties, ..PublishHead::default() };
        group.bench_function(BenchmarkId::new("head", case.name), |bencher| {
            bencher.iter(|| {
                out.clear();
                let at = black_box(&head).encode(version, view.payload.len(), &mut out);
                out.extend_from_slice(view.payload);
                at
            });
        });
    }
    group.finish();
}

fn connect(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("connect");
    for version in Version::ALL {
        let packet = Packet::Connect(Box::new(connect_packet(version)));
        let encoded = encode(&packet, version);
        let name = format!("{version:?}");
        group.bench_function(BenchmarkId::new("decode", &name), |bencher| {
            let source = Source::Shared(&encoded);
            bencher.iter(|| Packet::decode(black_box(frame_of(&encoded)), version, &Limits::default(), &source));
        });
        let mut out = Vec::with_capacity(256);
        group.bench_function(BenchmarkId::new("encode", &name), |bencher| {
            bencher.iter(|| {
                out.clear();
                black_box(&packet).encode(version, &mut out)
            });
        });
    }
    group.finish();
}

fn acknowledgement(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("puback");
    let ack = Ack::new(PacketId::MAX, ReasonCode::Success);
    let encoded = encode(&Packet::PubAck(ack.clone()), Version::V5);
    group.bench_function("decode", |bencher| {
        let limits = Limits::default();
        bencher.iter(|| Packet::decode(black_box(frame_of(&encoded)), Version::V5, &limits, &Source::Scratch));
    });
    let mut out = Vec::with_capacity(16);
    group.bench_function("encode", |bencher| {
        bencher.iter(|| {
            out.clear();
            black_box(&ack).encode(PacketType::PubAck, Version::V5, &mut out)
        });
    });
    group.finish();
}

fn topics(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("topic");
    let filter = TopicFilter::new("plant/+/line/+/#").expect("a filter");
    group.bench_function("check_name", |bencher| {
        bencher.iter(|| topic::check_name(black_box(TOPIC), &Limits::default()));
    });
    group.bench_function("matches", |bencher| bencher.iter(|| filter.matches(black_box(TOPIC))));
    group.finish();
}

struct Case {
    name: &'static str,
    version: Version,
    publish: Publish,
}

fn cases() -> Vec<Case> {
    let properties = || -> Properties {
        [
            Property::PayloadFormatIndicator(1),
            Property::ContentType(Text::from_static("application/json")),
            Property::UserProperty((Text::from_static("device"), Text::from_static("press-7"))),
        ]
        .into_iter()
        .collect()
    };
    let case = |name, version, len, properties| Case {
        name,
        version,
        publish: Publish {
            dup: false,
            qos: QoS::AtLeastOnce,
            retain: false,
            topic: TopicName::new(TOPIC).expect("a topic"),
            packet_id: PacketId::new(77),
            properties,
            payload: Bytes::from(vec![b'x'; len]),
        },
    };
    vec![
        case("v3_16B", Version::V3_1_1, 16, Properties::new()),
        case("v3_1KiB", Version::V3_1_1, 1024, Properties::new()),
        case("v5_16B", Version::V5, 16, Properties::new()),
        case("v5_1KiB", Version::V5, 1024, Properties::new()),
        case("v5_16B_3_properties", Version::V5, 16, properties()),
    ]
}

fn connect_packet(version: Version) -> Connect {
    let session_expiry = [Property::SessionExpiryInterval(3600)].into_iter().collect();
    Connect {
        version,
        clean_start: false,
        bridge: false,
        keep_alive: 60,
        client_id: Text::from_static("press-7"),
        will: Some(Will {
            topic: TopicName::new("plant/munich/press-7/state").expect("a topic"),
            payload: Bytes::from_static(b"offline"),
            qos: QoS::AtLeastOnce,
            retain: true,
            properties: Properties::new(),
        }),
        username: Some(Text::from_static("press")),
        password: Some(Bytes::from_static(b"correct horse battery staple")),
        properties: if version.is_v5() { session_expiry } else { Properties::new() },
    }
}

fn encode(packet: &Packet, version: Version) -> Bytes {
    let mut out = Vec::new();
    packet.encode(version, &mut out).expect("a valid packet");
    Bytes::from(out)
}

fn frame_of(encoded: &[u8]) -> Frame<'_> {
    match frame::cut(encoded, u32::MAX) {
        Ok(Cut::Frame(frame, _)) => frame,
        other => unreachable!("a whole packet was encoded: {other:?}"),
    }
}

/// 35 bytes in five levels, as telemetry topics are.
const TOPIC: &str = "plant/munich/line/4/press-7/torque1";

criterion_group!(benches, publish, connect, acknowledgement, topics);
criterion_main!(benches);
