//! What a hostile or broken peer may send: a table of packets, each with the answer that the specification names.
//!
//! In MQTT 5 that is CONNACK with the code before the connection is accepted and DISCONNECT with the code after it;
//! before MQTT 5 it is a return code where there is one, else the close alone. A client beside the offender, on the
//! same broker, never notices.

use ferromq::codec::{Packet, ReasonCode, Version};

use crate::{
    harness::{Bench, Peer, quiet},
    wire::{
        self, Connect, Publish, Subscribe, Unsubscribe, Will, Wire, auth, binary, p8, p16, p32, packet, pbin,
        properties, pstr, pvar, string, user,
    },
};

use ReasonCode as Code;

/// One thing a peer may do wrong.
struct Case {
    name: String,
    version: Version,
    /// Sent after an accepted CONNECT, or as the first bytes of the connection.
    connected: bool,
    bytes: Vec<u8>,
    answer: Answer,
}

/// What the offender gets; a close follows in every case.
#[derive(Clone, Copy)]
enum Answer {
    /// CONNACK or DISCONNECT with this code in MQTT 5; nothing before.
    Fault(Code),
    /// CONNACK with this code in every version.
    Refused(Code),
    /// Nothing at all.
    Silence,
}

use Answer::{Fault, Refused, Silence};

/// Malformed CONNECTs, and packets that are no CONNECT.
#[test]
fn first_packets_that_are_wrong() {
    run(both(|version| [wrong_connects(version), first_packets(version)].concat()));
}

#[test]
fn connect_properties_that_are_wrong() {
    run(connect_properties());
}

/// Frames that are wrong whatever is in them.
#[test]
fn frames_that_are_wrong() {
    run(both(frames));
}

#[test]
fn publications_that_are_wrong() {
    run(both(publications));
    run(publish_properties());
}

#[test]
fn subscriptions_that_are_wrong() {
    run(both(subscriptions));
    run(subscribe_properties());
}

#[test]
fn acknowledgements_that_are_wrong() {
    run(both(acknowledgements));
    run(acknowledgement_tails());
}

#[test]
fn endings_and_authentications_that_are_wrong() {
    run(endings());
}

/// The table is as long as it claims to be.
#[test]
fn the_table_holds_170_cases_at_least() {
    let all = [
        both(|version| [wrong_connects(version), first_packets(version)].concat()),
        connect_properties(),
        both(frames),
        both(publications),
        publish_properties(),
        both(subscriptions),
        subscribe_properties(),
        both(acknowledgements),
        acknowledgement_tails(),
        endings(),
    ];
    assert!(all.iter().map(Vec::len).sum::<usize>() >= 170);
}

/// Runs every case on one shard and on three, and tells all that fail.
fn run(cases: Vec<Case>) {
    let mut wrong = Vec::new();
    for shards in [1, 3] {
        for case in &cases {
            if let Err(fault) = case.run(shards) {
                wrong.push(format!("{:?}, {}, {shards} shards: {fault}", case.version, case.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), 2 * cases.len(), wrong.join("\n"));
}

impl Case {
    fn run(&self, shards: usize) -> Result<(), String> {
        let bench = Bench::new(quiet(), ferromq::broker::Hooks::default(), shards);
        let healthy = bench.client(self.version, "healthy");
        healthy.subscribe("#", 1);
        let offender =
            if self.connected { bench.client(self.version, "offender") } else { bench.connect_raw(self.version) };
        offender.send(self.bytes.clone());
        self.judge(&offender)?;
        if let Some(packet) = healthy.next() {
            return Err(format!("the healthy client received {packet:?}"));
        }
        healthy.publish("healthy", "still here", 1);
        if healthy.payloads() != ["still here"] {
            return Err("the healthy client was disturbed".into());
        }
        let again = bench.client(self.version, "offender");
        again.send(wire::PINGREQ);
        match again.next() {
            Some(Packet::PingResp) => Ok(()),
            other => Err(format!("the offender cannot come back: {other:?}")),
        }
    }

    fn judge(&self, offender: &Peer) -> Result<(), String> {
        let sent = offender.received();
        let v5 = self.version.is_v5();
        let code = match &sent[..] {
            [] => None,
            [Packet::ConnAck(connack)] if !self.connected => Some(connack.reason),
            [Packet::Disconnect(disconnect)] if self.connected && v5 => Some(disconnect.reason),
            other => return Err(format!("the answer was {other:?}")),
        };
        let expected = match self.answer {
            Fault(code) => v5.then_some(code),
            Refused(code) => Some(code),
            Silence => None,
        };
        if code != expected {
            let text = |code: Option<Code>| code.map_or("silence".into(), |code| code.to_string());
            return Err(format!("the answer was {}, not {}", text(code), text(expected)));
        }
        if offender.is_closed() { Ok(()) } else { Err("the connection stays open".into()) }
    }
}

/// Cases of MQTT 5 and of MQTT 3.1.1.
fn both(cases: impl Fn(Version) -> Vec<Case>) -> Vec<Case> {
    [Version::V5, Version::V3_1_1].into_iter().flat_map(cases).collect()
}

impl Clone for Case {
    fn clone(&self) -> Self {
        Self { name: self.name.clone(), bytes: self.bytes.clone(), ..*self }
    }
}

fn first(version: Version, name: &str, bytes: Vec<u8>, answer: Answer) -> Case {
    Case { name: name.into(), version, connected: false, bytes, answer }
}

fn after(version: Version, name: &str, bytes: Vec<u8>, answer: Answer) -> Case {
    Case { name: name.into(), version, connected: true, bytes, answer }
}

/// A CONNECT from its parts.
fn connect(name: &str, level: u8, flags: u8, version: Version, payload: &[&[u8]]) -> Vec<u8> {
    let mut body = string(name);
    body.extend([level, flags, 0, 0]);
    body.extend(properties(version, &[]));
    body.extend(payload.concat());
    packet(0x10, &body)
}

fn wrong_connects(version: Version) -> Vec<Case> {
    let malformed = Fault(Code::MalformedPacket);
    let level = version as u8;
    let none = properties(version, &[]);
    let id = string("id");
    let make = |flags, payload: &[&[u8]]| connect("MQTT", level, flags, version, payload);
    let mut trailing = Connect::new("id").wire(version);
    trailing.push(0);
    trailing[1] += 1;
    let mut flags = Connect::new("id").wire(version);
    flags[0] = 0x11;
    let unknown = Refused(Code::UnsupportedProtocolVersion);
    // Levels below 4 are answered in the form of 3.1.1, those above 5 in the form of MQTT 5.
    let (unknown_level, far_level) = if version.is_v5() { (6, 100) } else { (2, 0) };
    let case = |name, bytes, answer| first(version, name, bytes, answer);
    vec![
        case("CONNECT with the reserved flag", make(0x03, &[&id]), malformed),
        case("CONNECT with fixed header flags", flags, malformed),
        case("CONNECT without a payload", make(0x02, &[]), malformed),
        case("CONNECT with a client identifier cut short", make(0x02, &[&[0, 9, b'i', b'd']]), malformed),
        case("CONNECT with ill-formed UTF-8 in the identifier", make(0x02, &[&binary(b"\xC3\x28")]), malformed),
        case("CONNECT with a surrogate in the identifier", make(0x02, &[&binary(b"\xED\xA0\x80")]), malformed),
        case("CONNECT with U+0000 in the identifier", make(0x02, &[&binary(b"a\0")]), malformed),
        case("CONNECT with bytes after its end", trailing, malformed),
        case("CONNECT with a will flag and no will", make(0x06, &[&id]), malformed),
        case("CONNECT with a will topic and no payload", make(0x06, &[&id, &none, &string("w")]), malformed),
        case("CONNECT with will QoS 3", make(0x1E, &[&id, &none, &string("w"), &binary(b"p")]), malformed),
        case("CONNECT with will QoS and no will flag", make(0x0A, &[&id]), malformed),
        case("CONNECT with will retain and no will flag", make(0x22, &[&id]), malformed),
        case(
            "CONNECT with wildcards in the will topic",
            make(0x06, &[&id, &none, &string("a/#"), &binary(b"p")]),
            Fault(Code::TopicNameInvalid),
        ),
        case(
            "CONNECT with ill-formed UTF-8 in the will topic",
            make(0x06, &[&id, &none, &binary(b"\xFF"), &binary(b"p")]),
            malformed,
        ),
        case("CONNECT with a user name flag and no user name", make(0x82, &[&id]), malformed),
        case("CONNECT with a password flag and no password", make(0xC2, &[&id, &string("n")]), malformed),
        case("CONNECT with ill-formed UTF-8 in the user name", make(0x82, &[&id, &binary(b"\xFE")]), malformed),
        case("CONNECT with a user name without its flag", make(0x02, &[&id, &string("n")]), malformed),
        case("CONNECT with nothing in it", packet(0x10, &[]), Silence),
        case("CONNECT that ends in the protocol name", packet(0x10, &[0, 4, b'M', b'Q']), Silence),
        case("CONNECT with an unknown level", connect("MQTT", unknown_level, 2, version, &[&id]), unknown),
        case("CONNECT with a level far off", connect("MQTT", far_level, 2, version, &[&id]), unknown),
    ]
}

fn first_packets(version: Version) -> Vec<Case> {
    let mut cases: Vec<Case> = [
        ("PUBLISH first", Publish::new("t", "x").wire(version)),
        ("PUBLISH with QoS 1 first", Publish::new("t", "x").qos1(1).wire(version)),
        ("SUBSCRIBE first", Subscribe::new(1).filter("t", 0).wire(version)),
        ("UNSUBSCRIBE first", Unsubscribe::new(1).filter("t").wire(version)),
        ("PINGREQ first", wire::PINGREQ.to_vec()),
        ("PUBACK first", wire::puback(1).wire(version)),
        ("PUBREL first", wire::pubrel(1).wire(version)),
        ("DISCONNECT first", wire::disconnect().wire(version)),
        ("AUTH first", auth(0x18, "method", None).wire(Version::V5)),
        ("CONNACK first", vec![0x20, 2, 0, 0]),
        ("reserved packet type first", vec![0x00, 0]),
        ("endless remaining length first", vec![0x10, 0x80, 0x80, 0x80, 0x80, 0x01]),
        ("HTTP first", b"GET / HTTP/1.1\r\n\r\n".to_vec()),
        ("TLS first", vec![0x16, 0x03, 0x01, 0x00, 0x05, 1, 2, 3, 4, 5]),
    ]
    .into_iter()
    .map(|(name, bytes)| first(version, name, bytes, Silence))
    .collect();
    cases.push(match version {
        // Section 3.1.3.1 of MQTT 3.1.1 [MQTT-3.1.3-8].
        Version::V3_1_1 => first(
            version,
            "an empty identifier with clean session 0",
            Connect::new("").resume().wire(version),
            Refused(Code::ClientIdentifierNotValid),
        ),
        _ => first(
            version,
            "a will with a wildcard and QoS 2",
            Connect::new("id").will(Will::new("+/x", "p").qos(2)).wire(version),
            Fault(Code::TopicNameInvalid),
        ),
    });
    cases
}

/// Properties of CONNECT: values that are not allowed, twice the same, not in this packet, cut short.
fn connect_properties() -> Vec<Case> {
    let twice = |property: Vec<u8>| [property.clone(), property].concat();
    let protocol = Fault(Code::ProtocolError);
    let malformed = Fault(Code::MalformedPacket);
    let mut cases: Vec<Case> = [
        ("receive maximum 0", p16(wire::RECEIVE_MAXIMUM, 0), protocol),
        ("maximum packet size 0", p32(wire::MAXIMUM_PACKET_SIZE, 0), protocol),
        ("request problem information 2", p8(wire::REQUEST_PROBLEM_INFORMATION, 2), protocol),
        ("request response information 255", p8(wire::REQUEST_RESPONSE_INFORMATION, 255), protocol),
        ("session expiry twice", twice(p32(wire::SESSION_EXPIRY, 1)), protocol),
        ("receive maximum twice", twice(p16(wire::RECEIVE_MAXIMUM, 1)), protocol),
        ("maximum packet size twice", twice(p32(wire::MAXIMUM_PACKET_SIZE, 100)), protocol),
        ("topic alias maximum twice", twice(p16(wire::TOPIC_ALIAS_MAXIMUM, 1)), protocol),
        ("request response information twice", twice(p8(wire::REQUEST_RESPONSE_INFORMATION, 1)), protocol),
        ("request problem information twice", twice(p8(wire::REQUEST_PROBLEM_INFORMATION, 1)), protocol),
        ("authentication method twice", twice(pstr(wire::AUTHENTICATION_METHOD, "m")), protocol),
        ("authentication data without a method", pbin(wire::AUTHENTICATION_DATA, b"x"), protocol),
        (
            "an unknown authentication method",
            pstr(wire::AUTHENTICATION_METHOD, "m"),
            Fault(Code::BadAuthenticationMethod),
        ),
        ("a property that does not exist", vec![0x7F, 0], malformed),
        ("property identifier 0", vec![0x00, 0], malformed),
        ("a topic alias", p16(wire::TOPIC_ALIAS, 1), malformed),
        ("a server keep-alive", p16(wire::SERVER_KEEP_ALIVE, 1), malformed),
        ("a reason string", pstr(wire::REASON_STRING, "x"), malformed),
        ("an assigned client identifier", pstr(wire::ASSIGNED_CLIENT_ID, "x"), malformed),
        ("a session expiry cut short", vec![wire::SESSION_EXPIRY, 0, 0], malformed),
        ("a user property without its value", [vec![wire::USER_PROPERTY], string("name")].concat(), malformed),
        (
            "ill-formed UTF-8 in a user property",
            [vec![wire::USER_PROPERTY], binary(b"\xFF"), string("")].concat(),
            malformed,
        ),
    ]
    .into_iter()
    .map(|(name, property, answer)| {
        let bytes = Connect::new("id").with(property).wire(Version::V5);
        first(Version::V5, &format!("CONNECT with {name}"), bytes, answer)
    })
    .collect();
    for (name, property, answer) in [
        ("will delay twice", twice(p32(wire::WILL_DELAY, 1)), protocol),
        ("payload format 2 in the will", p8(wire::PAYLOAD_FORMAT, 2), protocol),
        ("a topic alias in the will", p16(wire::TOPIC_ALIAS, 1), malformed),
        ("wildcards in the will's response topic", pstr(wire::RESPONSE_TOPIC, "a/#"), protocol),
    ] {
        let bytes = Connect::new("id").will(Will::new("w", "p").with(property)).wire(Version::V5);
        cases.push(first(Version::V5, &format!("CONNECT with {name}"), bytes, answer));
    }
    // The length of the properties runs past the packet.
    let mut body = string("MQTT");
    body.extend([5, 2, 0, 0, 50]);
    body.extend(string("id"));
    cases.push(first(Version::V5, "CONNECT with properties longer than itself", packet(0x10, &body), malformed));
    cases
}

fn frames(version: Version) -> Vec<Case> {
    let malformed = Fault(Code::MalformedPacket);
    let case = |name: &str, bytes, answer| after(version, name, bytes, answer);
    let mut cases = vec![
        case("packet type 0", vec![0x00, 0], malformed),
        case("a remaining length of five bytes", vec![0x30, 0x80, 0x80, 0x80, 0x80, 0x01], malformed),
        case("a remaining length without end", vec![0x30, 0xFF, 0xFF, 0xFF, 0xFF], malformed),
        case("PINGREQ with a body", vec![0xC0, 1, 0], malformed),
        case("PINGREQ with flags", vec![0xC1, 0], malformed),
        case("a second CONNECT", Connect::new("offender").wire(version), Fault(Code::ProtocolError)),
        case("a second CONNECT for another client", Connect::new("other").wire(version), Fault(Code::ProtocolError)),
        case("CONNACK from a client", connack(version), Fault(Code::ProtocolError)),
        case("SUBACK from a client", suback(0x90, version), Fault(Code::ProtocolError)),
        case("UNSUBACK from a client", unsuback(version), Fault(Code::ProtocolError)),
        case("PINGRESP from a client", vec![0xD0, 0], Fault(Code::ProtocolError)),
    ];
    if !version.is_v5() {
        cases.push(case("AUTH before MQTT 5", vec![0xF0, 0], Silence));
    }
    cases
}

fn connack(version: Version) -> Vec<u8> {
    packet(0x20, &[vec![0, 0], properties(version, &[])].concat())
}

fn suback(header: u8, version: Version) -> Vec<u8> {
    packet(header, &[vec![0, 1], properties(version, &[]), vec![0]].concat())
}

fn unsuback(version: Version) -> Vec<u8> {
    if version.is_v5() { suback(0xB0, version) } else { packet(0xB0, &[0, 1]) }
}

fn publications(version: Version) -> Vec<Case> {
    let malformed = Fault(Code::MalformedPacket);
    let none = properties(version, &[]);
    let raw = |header, topic: &[u8]| packet(header, &[binary(topic), none.clone(), b"x".to_vec()].concat());
    let mut qos3 = Publish::new("t", "x").qos1(1).wire(version);
    qos3[0] = 0x36;
    let mut cases: Vec<Case> = vec![
        ("QoS 3", qos3, malformed),
        ("DUP and QoS 0", Publish::new("t", "x").dup().wire(version), malformed),
        ("packet identifier 0, QoS 1", Publish::new("t", "x").qos1(0).wire(version), Fault(Code::ProtocolError)),
        ("packet identifier 0, QoS 2", Publish::new("t", "x").qos2(0).wire(version), Fault(Code::ProtocolError)),
        ("no topic", raw(0x30, b""), Fault(Code::ProtocolError)),
        ("ill-formed UTF-8 in the topic", raw(0x30, b"\xC3\x28"), malformed),
        ("an overlong form in the topic", raw(0x30, b"\xC0\x80"), malformed),
        ("a surrogate in the topic", raw(0x30, b"\xED\xBF\xBF"), malformed),
        ("U+0000 in the topic", raw(0x30, b"a\0b"), malformed),
        ("an empty packet", packet(0x30, &[]), malformed),
        ("a topic longer than the packet", packet(0x30, &[0, 200, b't']), malformed),
        ("QoS 1 that ends before its identifier", packet(0x32, &string("t")), malformed),
        ("QoS 2 that ends in its identifier", packet(0x34, &[string("t"), vec![0]].concat()), malformed),
    ]
    .into_iter()
    .map(|(name, bytes, answer)| after(version, &format!("PUBLISH with {name}"), bytes, answer))
    .collect();
    for topic in ["#", "+", "a/#", "a/+/b", "a+"] {
        let bytes = Publish::new(topic, "x").wire(version);
        cases.push(after(version, &format!("PUBLISH to {topic}"), bytes, Fault(Code::TopicNameInvalid)));
    }
    let deep = Publish::new(&"a/".repeat(200), "x").wire(version);
    cases.push(after(version, "PUBLISH to a topic of 201 levels", deep, Fault(Code::TopicNameInvalid)));
    cases
}

fn publish_properties() -> Vec<Case> {
    let twice = |property: Vec<u8>| [property.clone(), property].concat();
    let protocol = Fault(Code::ProtocolError);
    let malformed = Fault(Code::MalformedPacket);
    let alias = Fault(Code::TopicAliasInvalid);
    let case = |name: &str, publish: Publish, answer| {
        after(Version::V5, &format!("PUBLISH with {name}"), publish.wire(Version::V5), answer)
    };
    let with = |property| Publish::new("t", "x").with(property);
    vec![
        case("topic alias 0", with(p16(wire::TOPIC_ALIAS, 0)), alias),
        case("a topic alias above the maximum", with(p16(wire::TOPIC_ALIAS, 33)), alias),
        case("topic alias 65535", with(p16(wire::TOPIC_ALIAS, u16::MAX)), alias),
        case("an alias that was never set", Publish::new("", "x").with(p16(wire::TOPIC_ALIAS, 1)), protocol),
        case("a topic alias twice", with(twice(p16(wire::TOPIC_ALIAS, 1))), protocol),
        case("a subscription identifier", with(pvar(wire::SUBSCRIPTION_ID, 1)), protocol),
        case("subscription identifier 0", with(pvar(wire::SUBSCRIPTION_ID, 0)), protocol),
        case("payload format 2", with(p8(wire::PAYLOAD_FORMAT, 2)), protocol),
        case("payload format twice", with(twice(p8(wire::PAYLOAD_FORMAT, 1))), protocol),
        case("message expiry twice", with(twice(p32(wire::MESSAGE_EXPIRY, 1))), protocol),
        case("content type twice", with(twice(pstr(wire::CONTENT_TYPE, "a"))), protocol),
        case("response topic twice", with(twice(pstr(wire::RESPONSE_TOPIC, "a"))), protocol),
        case("correlation data twice", with(twice(pbin(wire::CORRELATION_DATA, b"a"))), protocol),
        case("wildcards in the response topic", with(pstr(wire::RESPONSE_TOPIC, "a/#")), protocol),
        case("a session expiry", with(p32(wire::SESSION_EXPIRY, 1)), malformed),
        case("a reason string", with(pstr(wire::REASON_STRING, "a")), malformed),
        case("a will delay", with(p32(wire::WILL_DELAY, 1)), malformed),
        case("a property that does not exist", with(vec![0x04, 0]), malformed),
        case("a property identifier of two bytes", with(vec![0x80, 0x01, 0]), malformed),
        case("a message expiry cut short", with(vec![wire::MESSAGE_EXPIRY, 0]), malformed),
        case(
            "ill-formed UTF-8 in the content type",
            with([vec![wire::CONTENT_TYPE], binary(b"\xFF")].concat()),
            malformed,
        ),
        case("U+0000 in a user property", with(user("a\0", "b")), malformed),
        after(
            Version::V5,
            "PUBLISH with properties longer than itself",
            packet(0x30, &[string("t"), vec![100]].concat()),
            malformed,
        ),
        after(
            Version::V5,
            "PUBLISH with a property length without end",
            packet(0x30, &[string("t"), vec![0xFF; 6]].concat()),
            malformed,
        ),
    ]
}

fn subscriptions(version: Version) -> Vec<Case> {
    let malformed = Fault(Code::MalformedPacket);
    let filter = Fault(Code::TopicFilterInvalid);
    let protocol = Fault(Code::ProtocolError);
    let none = properties(version, &[]);
    let head = [vec![0, 1], none].concat();
    let raw = |filter: &[u8]| packet(0x82, &[head.clone(), binary(filter), vec![0]].concat());
    let mut flags = Subscribe::new(1).filter("t", 0).wire(version);
    flags[0] = 0x80;
    let mut unflags = Unsubscribe::new(1).filter("t").wire(version);
    unflags[0] = 0xA0;
    let mut cases: Vec<Case> = vec![
        ("SUBSCRIBE without filters", Subscribe::new(1).wire(version), protocol),
        ("SUBSCRIBE with identifier 0", Subscribe::new(0).filter("t", 0).wire(version), protocol),
        ("SUBSCRIBE with flags 0000", flags, malformed),
        // Section 3.8.3.1; before MQTT 5 both just close.
        ("SUBSCRIBE with QoS 3", Subscribe::new(1).filter("t", 3).wire(version), protocol),
        ("SUBSCRIBE with reserved bits", Subscribe::new(1).filter("t", 0xC0).wire(version), malformed),
        ("SUBSCRIBE with a bad second filter", Subscribe::new(1).filter("t", 0).filter("a#", 0).wire(version), filter),
        ("SUBSCRIBE without options", packet(0x82, &[head.clone(), string("t")].concat()), malformed),
        ("SUBSCRIBE with a filter cut short", packet(0x82, &[head.clone(), vec![0, 9, b't']].concat()), malformed),
        ("SUBSCRIBE with ill-formed UTF-8", raw(b"\xFF"), malformed),
        ("SUBSCRIBE with U+0000", raw(b"a\0"), malformed),
        ("SUBSCRIBE with nothing in it", packet(0x82, &[]), malformed),
        ("SUBSCRIBE to 201 levels", Subscribe::new(1).filter(&"a/".repeat(200), 0).wire(version), filter),
        ("UNSUBSCRIBE without filters", Unsubscribe::new(1).wire(version), protocol),
        ("UNSUBSCRIBE with identifier 0", Unsubscribe::new(0).filter("t").wire(version), protocol),
        ("UNSUBSCRIBE with flags 0000", unflags, malformed),
        ("UNSUBSCRIBE with a wildcard in a word", Unsubscribe::new(1).filter("a#").wire(version), filter),
        ("UNSUBSCRIBE with ill-formed UTF-8", packet(0xA2, &[head.clone(), binary(b"\xFF")].concat()), malformed),
        ("UNSUBSCRIBE with a filter cut short", packet(0xA2, &[head, vec![0, 9, b't']].concat()), malformed),
    ]
    .into_iter()
    .map(|(name, bytes, answer)| after(version, name, bytes, answer))
    .collect();
    for bad in
        ["", "a/#/b", "a#", "#a", "a+/b", "+a", "a/b+", "##", "$share//t", "$share/g", "$share/g+/t", "$share/#/t"]
    {
        let bytes = Subscribe::new(1).filter(bad, 0).wire(version);
        cases.push(after(version, &format!("SUBSCRIBE to {bad:?}"), bytes, filter));
    }
    cases
}

fn subscribe_properties() -> Vec<Case> {
    let protocol = Fault(Code::ProtocolError);
    let case = |name: &str, subscribe: Subscribe, answer| {
        after(Version::V5, &format!("SUBSCRIBE with {name}"), subscribe.wire(Version::V5), answer)
    };
    let with = |property| Subscribe::new(1).filter("t", 0).with(property);
    let id = pvar(wire::SUBSCRIPTION_ID, 1);
    vec![
        case("retain handling 3", Subscribe::new(1).filter("t", 0x30), protocol),
        case("No Local on a shared filter", Subscribe::new(1).filter("$share/g/t", wire::NO_LOCAL), protocol),
        case("subscription identifier 0", with(pvar(wire::SUBSCRIPTION_ID, 0)), protocol),
        case("two subscription identifiers", with([id.clone(), id].concat()), protocol),
        case("a topic alias", with(p16(wire::TOPIC_ALIAS, 1)), Fault(Code::MalformedPacket)),
        case(
            "an identifier of five bytes",
            with(vec![wire::SUBSCRIPTION_ID, 0xFF, 0xFF, 0xFF, 0xFF, 1]),
            Fault(Code::MalformedPacket),
        ),
        case("an identifier cut short", with(vec![wire::SUBSCRIPTION_ID]), Fault(Code::MalformedPacket)),
        after(
            Version::V5,
            "UNSUBSCRIBE with a subscription identifier",
            Unsubscribe::new(1).filter("t").with(pvar(wire::SUBSCRIPTION_ID, 1)).wire(Version::V5),
            Fault(Code::MalformedPacket),
        ),
    ]
}

fn acknowledgements(version: Version) -> Vec<Case> {
    let malformed = Fault(Code::MalformedPacket);
    let mut cases = Vec::new();
    for (name, header) in [("PUBACK", 0x40), ("PUBREC", 0x50), ("PUBREL", 0x62), ("PUBCOMP", 0x70)] {
        let case = |what: &str, bytes, answer| after(version, &format!("{name} {what}"), bytes, answer);
        cases.push(case("with identifier 0", packet(header, &[0, 0]), Fault(Code::ProtocolError)));
        cases.push(case("with flags 0101", packet(header & 0xF0 | 5, &[0, 1]), malformed));
        cases.push(case("of one byte", packet(header, &[0]), malformed));
        cases.push(case("of no byte", packet(header, &[]), malformed));
        if !version.is_v5() {
            cases.push(case("of three bytes", packet(header, &[0, 1, 0]), malformed));
        }
    }
    cases
}

fn acknowledgement_tails() -> Vec<Case> {
    let protocol = Fault(Code::ProtocolError);
    let malformed = Fault(Code::MalformedPacket);
    let mut cases = Vec::new();
    for (name, header, foreign) in
        [("PUBACK", 0x40, 0x92), ("PUBREC", 0x50, 0x92), ("PUBREL", 0x62, 0x87), ("PUBCOMP", 0x70, 0x10)]
    {
        let case = |what: &str, tail: &[u8], answer| {
            let bytes = packet(header, &[&[0, 1], tail].concat());
            after(Version::V5, &format!("{name} {what}"), bytes, answer)
        };
        cases.push(case("with a reason code that does not exist", &[0x03], protocol));
        cases.push(case("with a reason code of another packet", &[foreign], protocol));
        cases.push(case("with properties longer than itself", &[0, 9], malformed));
        cases.push(case("with a topic alias", &[0, 3, wire::TOPIC_ALIAS, 0, 1], malformed));
        let reason = pstr(wire::REASON_STRING, "r");
        let twice = [vec![0, 2 * reason.len() as u8], reason.clone(), reason].concat();
        cases.push(case("with two reason strings", &twice, protocol));
    }
    cases
}

fn endings() -> Vec<Case> {
    let protocol = Fault(Code::ProtocolError);
    let malformed = Fault(Code::MalformedPacket);
    let case = |name: &str, bytes, answer| after(Version::V5, name, bytes, answer);
    let expiry = wire::disconnect().with(p32(wire::SESSION_EXPIRY, 10)).wire(Version::V5);
    let alias = wire::disconnect().with(p16(wire::TOPIC_ALIAS, 1)).wire(Version::V5);
    vec![
        case("DISCONNECT with flags", packet(0xE1, &[]), malformed),
        case("DISCONNECT with a code that does not exist", packet(0xE0, &[0x05]), protocol),
        case("DISCONNECT with a code of a server", packet(0xE0, &[0x8B]), protocol),
        case("DISCONNECT with a code of another packet", packet(0xE0, &[0x10]), protocol),
        case("DISCONNECT with a session expiry where CONNECT had none", expiry, protocol),
        case("DISCONNECT with a topic alias", alias, malformed),
        case("DISCONNECT with properties longer than itself", packet(0xE0, &[0, 5]), malformed),
        case("DISCONNECT with bytes after its end", packet(0xE0, &[0, 0, 0]), malformed),
        case("AUTH without a method", packet(0xF0, &[0x18, 0]), protocol),
        case("AUTH of no byte", packet(0xF0, &[]), protocol),
        case("AUTH where CONNECT had no method", auth(0x19, "m", None).wire(Version::V5), protocol),
        case("AUTH with a code that does not exist", auth(0x1A, "m", None).wire(Version::V5), protocol),
        case("AUTH with flags", packet(0xF1, &[0x18, 0]), malformed),
        after(Version::V3_1_1, "DISCONNECT with a body", packet(0xE0, &[0]), Silence),
        after(Version::V3_1_1, "DISCONNECT with flags", packet(0xE8, &[]), Silence),
    ]
}
