//! Every packet of every version survives encoding and decoding: whole, in pieces, shared and copied.
//!
//! The strategies build any packet that the specification allows. Which properties belong where is written down here
//! once more, from section 2.2.2.2's table, so that an error in the codec's own table shows.

#![allow(clippy::unwrap_used)] // clippy.toml allows it in test functions, these are their helpers

use bytes::Bytes;
use ferromq::codec::{
    Ack, Auth, ConnAck, Connect, Cut, Decoder, Disconnect, Limits, Packet, PacketId, PacketType, Properties, Property,
    Publish, PublishHead, PublishRef, QoS, ReasonCode, RetainHandling, Source, SubAck, Subscribe, Subscription,
    SubscriptionOptions, Text, TopicFilter, TopicName, UnsubAck, Unsubscribe, Version, Will, frame, publish,
};
use proptest::{collection::vec, option, prelude::*, sample::select, strategy::Union};

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_packet_survives_encoding_and_decoding((version, packet) in any_packet()) {
        let bytes = encode(&packet, version);
        prop_assert_eq!(packet.encoded_len(version).unwrap(), bytes.len());
        let Ok(Cut::Frame(frame, used)) = frame::cut(&bytes, u32::MAX) else { panic!("a whole packet") };
        prop_assert_eq!(used, bytes.len());
        let copied = Packet::decode(frame, version, &Limits::default(), &Source::Scratch);
        prop_assert_eq!(copied.as_ref(), Ok(&packet));
        let shared = Packet::decode(frame, version, &Limits::default(), &Source::Shared(&bytes));
        prop_assert_eq!(shared.as_ref(), Ok(&packet));
    }

    #[test]
    fn a_packet_is_decoded_only_when_its_last_byte_is_there((version, packet) in any_packet(), at in any::<prop::sample::Index>()) {
        let bytes = encode(&packet, version);
        let at = at.index(bytes.len());
        let mut decoder = Decoder::new();
        decoder.feed(&bytes[..at]);
        prop_assert_eq!(decoder.poll(version, &Limits::default()), Ok(None));
        decoder.feed(&bytes[at..]);
        prop_assert_eq!(decoder.poll(version, &Limits::default()), Ok(Some(packet)));
        prop_assert_eq!(decoder.poll(version, &Limits::default()), Ok(None));
    }

    #[test]
    fn a_packet_cut_short_is_never_taken_for_a_whole_one((version, packet) in any_packet()) {
        let bytes = encode(&packet, version);
        let Ok(Cut::Frame(whole, _)) = frame::cut(&bytes, u32::MAX) else { panic!("a whole packet") };
        for len in 0..whole.body.len() {
            let short = frame::Frame::new(whole.header, &whole.body[..len]);
            if let Ok(other) = Packet::decode(short, version, &Limits::default(), &Source::Scratch) {
                // A shorter payload, list or acknowledgement may be a packet too, but a different one.
                prop_assert_ne!(&other, &packet);
            }
        }
    }

    #[test]
    fn streams_decode_alike_however_they_are_split(
        packets in prop_oneof![Just(Version::V3_1), Just(Version::V3_1_1), Just(Version::V5)]
            .prop_flat_map(|version| (Just(version), vec(packet(version), 1..6))),
        sizes in vec(1_usize..40, 1..20),
    ) {
        let (version, packets) = packets;
        let stream: Vec<u8> = packets.iter().flat_map(|packet| encode(packet, version)).collect();
        let mut decoder = Decoder::new();
        let mut decoded = Vec::new();
        let mut rest = stream.as_slice();
        for size in sizes.iter().cycle() {
            let (piece, after) = rest.split_at((*size).min(rest.len()));
            decoder.feed(piece);
            while let Some(packet) = decoder.poll(version, &Limits::default()).unwrap() {
                decoded.push(packet);
            }
            rest = after;
            if rest.is_empty() {
                break;
            }
        }
        prop_assert_eq!(decoded, packets);
    }

    #[test]
    fn a_publish_head_and_its_payload_are_a_publish(
        (version, publish) in version().prop_flat_map(|version| (Just(version), publish(version))),
        alias in option::of(1_u16..),
        alias_only in any::<bool>(),
        ids in vec(1_u32..=268_435_455, 0..4),
        packet_id in 1_u16..,
    ) {
        let mut properties = Vec::new();
        publish::forward_owned(&publish.properties, &mut properties).unwrap();
        let topic = if publish.topic.as_str().is_empty() { "t" } else { publish.topic.as_str() };
        let head = PublishHead {
            dup: publish.dup,
            qos: publish.qos,
            retain: publish.retain,
            topic,
            topic_alias: alias,
            alias_only: alias_only && alias.is_some(),
            message_expiry: publish.properties.message_expiry_interval(),
            subscription_ids: &ids,
            properties: &properties,
        };
        let before = b"what was there".to_vec();
        let mut out = before.clone();
        let packet_id_at = head.encode(version, publish.payload.len(), &mut out).unwrap();
        out.extend_from_slice(&publish.payload);
        let mut bytes = out.split_off(before.len());
        prop_assert_eq!(out, before);
        prop_assert_eq!(packet_id_at.is_some(), publish.qos != QoS::AtMostOnce);
        prop_assert_eq!(bytes.len(), head.packet_len(version, publish.payload.len()));
        if let Some(at) = packet_id_at {
            bytes[at..at + 2].copy_from_slice(&packet_id.to_be_bytes());
        }
        let decoded = decode_publish(&bytes, version);
        let sent_empty = head.alias_only && version.is_v5();
        prop_assert_eq!(decoded.topic, if sent_empty { "" } else { topic });
        prop_assert_eq!(decoded.packet_id.map(PacketId::get), packet_id_at.map(|_| packet_id));
        prop_assert_eq!(decoded.payload, &publish.payload);
        if version.is_v5() {
            prop_assert_eq!(decoded.topic_alias, alias);
            prop_assert_eq!(decoded.message_expiry, head.message_expiry);
            prop_assert_eq!(decoded.to_publish(&Source::Scratch).properties.subscription_identifiers().collect::<Vec<_>>(), ids);
            let mut forwarded = Vec::new();
            decoded.forward_properties(&mut forwarded);
            prop_assert_eq!(forwarded, properties);
        }
    }
}

#[test]
fn every_packet_survives_being_split_at_every_byte() {
    for version in Version::ALL {
        for packet in one_of_each(version) {
            let bytes = encode(&packet, version);
            for at in 0..=bytes.len() {
                let mut decoder = Decoder::new();
                decoder.feed(&bytes[..at]);
                let early = decoder.poll(version, &Limits::default()).unwrap();
                decoder.feed(&bytes[at..]);
                let decoded = early.or_else(|| decoder.poll(version, &Limits::default()).unwrap());
                assert_eq!(decoded.as_ref(), Some(&packet), "{version:?}, split at {at}");
            }
        }
    }
}

fn encode(packet: &Packet, version: Version) -> Bytes {
    let mut out = Vec::new();
    packet.encode(version, &mut out).unwrap_or_else(|error| panic!("{packet:?}: {error}"));
    Bytes::from(out)
}

fn decode_publish(bytes: &[u8], version: Version) -> PublishRef<'_> {
    let Ok(Cut::Frame(frame, _)) = frame::cut(bytes, u32::MAX) else { panic!("a whole packet") };
    PublishRef::decode(frame, version, &Limits::default()).unwrap()
}

/// One packet of each type, with something in every field.
fn one_of_each(version: Version) -> Vec<Packet> {
    let id = PacketId::new(0x0A0B).unwrap();
    let extra = || -> Properties {
        let pair = Property::UserProperty((Text::from_static("name"), Text::from_static("value")));
        if version.is_v5() { [pair].into_iter().collect() } else { Properties::new() }
    };
    let failure = |reason| if version.is_v5() { reason } else { ReasonCode::Success };
    let ack = |reason| Ack { packet_id: id, reason: failure(reason), properties: extra() };
    let mut packets = vec![
        Packet::Connect(Box::new(Connect {
            version,
            clean_start: true,
            bridge: false,
            keep_alive: 60,
            client_id: Text::from_static("client"),
            will: Some(Will {
                topic: TopicName::new("will/topic").unwrap(),
                payload: Bytes::from_static(b"gone"),
                qos: QoS::AtLeastOnce,
                retain: true,
                properties: extra(),
            }),
            username: Some(Text::from_static("user")),
            password: Some(Bytes::from_static(b"\0secret")),
            properties: extra(),
        })),
        Packet::ConnAck(Box::new(ConnAck {
            session_present: version != Version::V3_1,
            reason: ReasonCode::Success,
            properties: extra(),
        })),
        Packet::Publish(Publish {
            dup: true,
            qos: QoS::ExactlyOnce,
            retain: true,
            topic: TopicName::new("a/b").unwrap(),
            packet_id: Some(id),
            properties: extra(),
            payload: Bytes::from_static(b"payload"),
        }),
        Packet::PubAck(ack(ReasonCode::NoMatchingSubscribers)),
        Packet::PubRec(ack(ReasonCode::QuotaExceeded)),
        Packet::PubRel(ack(ReasonCode::PacketIdentifierNotFound)),
        Packet::PubComp(ack(ReasonCode::PacketIdentifierNotFound)),
        Packet::Subscribe(Subscribe {
            packet_id: id,
            properties: extra(),
            subscriptions: vec![
                Subscription {
                    filter: TopicFilter::new("a/+/#").unwrap(),
                    options: SubscriptionOptions::new(QoS::AtLeastOnce),
                };
                2
            ],
        }),
        Packet::SubAck(SubAck {
            packet_id: id,
            properties: extra(),
            reasons: vec![ReasonCode::GrantedQoS1, ReasonCode::UnspecifiedError],
        }),
        Packet::Unsubscribe(Unsubscribe {
            packet_id: id,
            properties: extra(),
            filters: vec![TopicFilter::new("a/+/#").unwrap(), TopicFilter::new("$share/g/b").unwrap()],
        }),
        Packet::UnsubAck(UnsubAck {
            packet_id: id,
            properties: extra(),
            reasons: if version.is_v5() { vec![ReasonCode::NoSubscriptionExisted] } else { Vec::new() },
        }),
        Packet::PingReq,
        Packet::PingResp,
        Packet::Disconnect(Disconnect { reason: failure(ReasonCode::DisconnectWithWill), properties: extra() }),
    ];
    if version.is_v5() {
        let method = Property::AuthenticationMethod(Text::from_static("SCRAM-SHA-1"));
        let properties = [method].into_iter().collect();
        packets.push(Packet::Auth(Auth { reason: ReasonCode::ContinueAuthentication, properties }));
    }
    packets
}

fn version() -> impl Strategy<Value = Version> {
    select(&Version::ALL[..])
}

fn any_packet() -> impl Strategy<Value = (Version, Packet)> {
    version().prop_flat_map(|version| (Just(version), packet(version)))
}

fn packet(version: Version) -> BoxedStrategy<Packet> {
    let v5 = version.is_v5();
    let ack = move |packet_type| ack(version, packet_type);
    let mut packets = vec![
        connect(version).prop_map(|connect| Packet::Connect(Box::new(connect))).boxed(),
        connack(version).prop_map(|connack| Packet::ConnAck(Box::new(connack))).boxed(),
        publish(version).prop_map(Packet::Publish).boxed(),
        ack(PacketType::PubAck).prop_map(Packet::PubAck).boxed(),
        ack(PacketType::PubRec).prop_map(Packet::PubRec).boxed(),
        ack(PacketType::PubRel).prop_map(Packet::PubRel).boxed(),
        ack(PacketType::PubComp).prop_map(Packet::PubComp).boxed(),
        subscribe(version).prop_map(Packet::Subscribe).boxed(),
        suback(version).prop_map(Packet::SubAck).boxed(),
        (packet_id(), properties(v5, vec![user_property()]), vec(filter(), 1..5))
            .prop_map(|(packet_id, properties, filters)| Unsubscribe { packet_id, properties, filters })
            .prop_map(Packet::Unsubscribe)
            .boxed(),
        unsuback(version).prop_map(Packet::UnsubAck).boxed(),
        Just(Packet::PingReq).boxed(),
        Just(Packet::PingResp).boxed(),
        disconnect(version).prop_map(Packet::Disconnect).boxed(),
    ];
    if v5 {
        packets.push(auth().prop_map(Packet::Auth).boxed());
    }
    Union::new(packets).boxed()
}

fn connect(version: Version) -> impl Strategy<Value = Connect> {
    let v5 = version.is_v5();
    let place = vec![
        number(Property::SessionExpiryInterval, 0..=u32::MAX),
        number(Property::ReceiveMaximum, 1..=u16::MAX),
        number(Property::MaximumPacketSize, 1..=u32::MAX),
        number(Property::TopicAliasMaximum, 0..=u16::MAX),
        flag(Property::RequestResponseInformation),
        flag(Property::RequestProblemInformation),
        user_property(),
        authentication_method(),
    ];
    let will_place = vec![
        number(Property::WillDelayInterval, 0..=u32::MAX),
        number(Property::PayloadFormatIndicator, 0..=1),
        number(Property::MessageExpiryInterval, 0..=u32::MAX),
        string(Property::ContentType, text()),
        string(Property::ResponseTopic, topic_text()),
        binary(Property::CorrelationData),
        user_property(),
    ];
    let will = (topic(), payload(), qos(), any::<bool>(), properties(v5, will_place))
        .prop_map(|(topic, payload, qos, retain, properties)| Will { topic, payload, qos, retain, properties });
    let id = if version == Version::V3_1 { "[a-z0-9]{1,23}" } else { "[a-z0-9é-]{0,40}" };
    let head = (any::<bool>(), any::<bool>(), any::<u16>(), id.prop_map(text_of));
    let credentials = (option::of(text()), option::of(payload()));
    (head, option::of(will), credentials, properties(v5, place)).prop_map(
        move |((clean_start, bridge, keep_alive, client_id), will, (username, password), properties)| Connect {
            version,
            clean_start,
            bridge: bridge && !version.is_v5(),
            keep_alive,
            client_id,
            will,
            password: password.filter(|_| version.is_v5() || username.is_some()),
            username,
            properties,
        },
    )
}

fn connack(version: Version) -> impl Strategy<Value = ConnAck> {
    let place = vec![
        number(Property::SessionExpiryInterval, 0..=u32::MAX),
        number(Property::ReceiveMaximum, 1..=u16::MAX),
        number(Property::MaximumQoS, 0..=1),
        flag(Property::RetainAvailable),
        number(Property::MaximumPacketSize, 1..=u32::MAX),
        string(Property::AssignedClientIdentifier, text()),
        number(Property::TopicAliasMaximum, 0..=u16::MAX),
        reason_string(),
        user_property(),
        flag(Property::WildcardSubscriptionAvailable),
        flag(Property::SubscriptionIdentifierAvailable),
        flag(Property::SharedSubscriptionAvailable),
        number(Property::ServerKeepAlive, 0..=u16::MAX),
        string(Property::ResponseInformation, text()),
        string(Property::ServerReference, text()),
        authentication_method(),
    ];
    let reason = if version.is_v5() {
        legal_reason(PacketType::ConnAck).boxed()
    } else {
        (0_u8..=5).prop_map(|code| ReasonCode::from_connect_return_code(code).unwrap()).boxed()
    };
    (any::<bool>(), reason, properties(version.is_v5(), place)).prop_map(move |(session, reason, properties)| ConnAck {
        session_present: session && reason == ReasonCode::Success && version != Version::V3_1,
        reason,
        properties,
    })
}

fn publish(version: Version) -> BoxedStrategy<Publish> {
    let v5 = version.is_v5();
    let place = vec![
        number(Property::PayloadFormatIndicator, 0..=1),
        number(Property::MessageExpiryInterval, 0..=u32::MAX),
        number(Property::TopicAlias, 1..=u16::MAX),
        string(Property::ResponseTopic, topic_text()),
        binary(Property::CorrelationData),
        user_property(),
        number(Property::SubscriptionIdentifier, 1..=268_435_455),
        string(Property::ContentType, text()),
    ];
    (any::<bool>(), qos(), any::<bool>(), (topic(), any::<bool>()), packet_id(), properties(v5, place), payload())
        .prop_map(|(dup, qos, retain, (topic, leave_topic), packet_id, properties, payload)| Publish {
            dup: dup && qos != QoS::AtMostOnce,
            qos,
            retain,
            topic: if leave_topic && properties.topic_alias().is_some() { TopicName::empty() } else { topic },
            packet_id: (qos != QoS::AtMostOnce).then_some(packet_id),
            properties,
            payload,
        })
        .boxed()
}

fn ack(version: Version, packet_type: PacketType) -> impl Strategy<Value = Ack> {
    let v5 = version.is_v5();
    let reason = if v5 { legal_reason(packet_type).boxed() } else { Just(ReasonCode::Success).boxed() };
    (packet_id(), reason, properties(v5, vec![reason_string(), user_property()]))
        .prop_map(|(packet_id, reason, properties)| Ack { packet_id, reason, properties })
}

fn subscribe(version: Version) -> impl Strategy<Value = Subscribe> {
    let v5 = version.is_v5();
    let handling = select(&[RetainHandling::Send, RetainHandling::SendIfNew, RetainHandling::DoNotSend][..]);
    let subscription = (filter(), qos(), any::<bool>(), any::<bool>(), handling).prop_map(
        move |(filter, qos, no_local, retain_as_published, retain_handling)| {
            let no_local = no_local && filter.shared().is_none();
            let all = SubscriptionOptions { qos, no_local, retain_as_published, retain_handling };
            let options = if v5 { all } else { SubscriptionOptions::new(qos) };
            Subscription { filter, options }
        },
    );
    let place = vec![number(Property::SubscriptionIdentifier, 1..=268_435_455), user_property()];
    (packet_id(), properties(v5, place), vec(subscription, 1..5))
        .prop_map(|(packet_id, properties, subscriptions)| Subscribe { packet_id, properties, subscriptions })
}

fn suback(version: Version) -> impl Strategy<Value = SubAck> {
    let v5 = version.is_v5();
    let granted = [ReasonCode::Success, ReasonCode::GrantedQoS1, ReasonCode::GrantedQoS2, ReasonCode::UnspecifiedError];
    let reason = if v5 { legal_reason(PacketType::SubAck).boxed() } else { select(granted.to_vec()).boxed() };
    (packet_id(), properties(v5, vec![reason_string(), user_property()]), vec(reason, 1..5))
        .prop_map(|(packet_id, properties, reasons)| SubAck { packet_id, properties, reasons })
}

fn unsuback(version: Version) -> impl Strategy<Value = UnsubAck> {
    let v5 = version.is_v5();
    let count = if v5 { 1..5 } else { 0..1 };
    let reasons = vec(legal_reason(PacketType::UnsubAck), count);
    (packet_id(), properties(v5, vec![reason_string(), user_property()]), reasons)
        .prop_map(|(packet_id, properties, reasons)| UnsubAck { packet_id, properties, reasons })
}

fn disconnect(version: Version) -> impl Strategy<Value = Disconnect> {
    let v5 = version.is_v5();
    let place = vec![
        number(Property::SessionExpiryInterval, 0..=u32::MAX),
        reason_string(),
        user_property(),
        string(Property::ServerReference, text()),
    ];
    let reason = if v5 { legal_reason(PacketType::Disconnect).boxed() } else { Just(ReasonCode::Success).boxed() };
    (reason, properties(v5, place)).prop_map(|(reason, properties)| Disconnect { reason, properties })
}

fn auth() -> impl Strategy<Value = Auth> {
    let method = string(Property::AuthenticationMethod, text());
    let rest = properties(true, vec![binary(Property::AuthenticationData), reason_string(), user_property()]);
    let full = (legal_reason(PacketType::Auth), method, rest).prop_map(|(reason, method, rest)| Auth {
        reason,
        properties: method.into_iter().chain(rest.iter().cloned()).collect(),
    });
    prop_oneof![8 => full, 1 => Just(Auth { reason: ReasonCode::Success, properties: Properties::new() })]
}

/// Some of the properties that a place allows, in any order.
fn properties(v5: bool, place: Vec<BoxedStrategy<Vec<Property>>>) -> BoxedStrategy<Properties> {
    if !v5 {
        return Just(Properties::new()).boxed();
    }
    let some = place.into_iter().map(|one| prop_oneof![2 => Just(Vec::new()), 1 => one].boxed()).collect::<Vec<_>>();
    some.prop_map(|lists| lists.concat()).prop_shuffle().prop_map(|all| all.into_iter().collect()).boxed()
}

fn number<T>(make: fn(T) -> Property, range: std::ops::RangeInclusive<T>) -> BoxedStrategy<Vec<Property>>
where
    T: std::fmt::Debug + Clone + 'static,
    std::ops::RangeInclusive<T>: Strategy<Value = T>,
{
    range.prop_map(move |value| vec![make(value)]).boxed()
}

fn flag(make: fn(bool) -> Property) -> BoxedStrategy<Vec<Property>> {
    any::<bool>().prop_map(move |value| vec![make(value)]).boxed()
}

fn string(make: fn(Text) -> Property, value: impl Strategy<Value = Text> + 'static) -> BoxedStrategy<Vec<Property>> {
    value.prop_map(move |value| vec![make(value)]).boxed()
}

fn binary(make: fn(Bytes) -> Property) -> BoxedStrategy<Vec<Property>> {
    payload().prop_map(move |value| vec![make(value)]).boxed()
}

fn reason_string() -> BoxedStrategy<Vec<Property>> {
    string(Property::ReasonString, text())
}

fn user_property() -> BoxedStrategy<Vec<Property>> {
    vec((text(), text()).prop_map(Property::UserProperty), 1..4).boxed()
}

/// The method, and perhaps the data that needs it.
fn authentication_method() -> BoxedStrategy<Vec<Property>> {
    let data = option::of(payload().prop_map(Property::AuthenticationData));
    (text().prop_map(Property::AuthenticationMethod), data)
        .prop_map(|(method, data)| std::iter::once(method).chain(data).collect())
        .boxed()
}

fn legal_reason(packet_type: PacketType) -> impl Strategy<Value = ReasonCode> {
    let legal: Vec<_> = ReasonCode::ALL.iter().copied().filter(|reason| reason.is_legal_in(packet_type)).collect();
    select(legal)
}

fn packet_id() -> impl Strategy<Value = PacketId> {
    (1_u16..).prop_map(|id| PacketId::new(id).unwrap())
}

fn qos() -> impl Strategy<Value = QoS> {
    select(&[QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce][..])
}

fn payload() -> impl Strategy<Value = Bytes> {
    prop_oneof![4 => vec(any::<u8>(), 0..40), 1 => vec(any::<u8>(), 100..400)].prop_map(Bytes::from)
}

fn text() -> impl Strategy<Value = Text> {
    "[ -~é€😀]{0,20}".prop_map(text_of)
}

fn topic_text() -> impl Strategy<Value = Text> {
    "[a-z0-9é/ $]{1,30}".prop_map(text_of)
}

fn topic() -> impl Strategy<Value = TopicName> {
    topic_text().prop_map(|text| TopicName::parse(text, &Limits::default()).unwrap())
}

fn filter() -> impl Strategy<Value = TopicFilter> {
    "(\\$share/[a-z]{1,4}/)?([+]|[a-zé]{0,3})(/([+]|[a-zé]{0,3})){0,4}(/#)?"
        .prop_filter_map("a valid filter", |filter| TopicFilter::new(&filter).ok())
}

fn text_of(text: String) -> Text {
    Text::try_from(text).unwrap()
}
