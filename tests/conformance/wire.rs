//! Packets as bytes, built by hand.
//!
//! The suite does not send what the crate's own encoder makes: an error that encoder and decoder share would pass
//! unseen. Every builder can also be bent to make a packet that is wrong in one place.

use ferromq::codec::Version;

/// Something that can be sent on a connection of some version.
pub(crate) trait Wire {
    /// Its bytes.
    fn wire(&self, version: Version) -> Vec<u8>;
}

/// A CONNECT. Keep-alive is off unless set, so that virtual time may run.
#[derive(Debug, Clone)]
pub(crate) struct Connect {
    id: String,
    clean: bool,
    keep_alive: u16,
    will: Option<Will>,
    username: Option<String>,
    password: Option<Vec<u8>>,
    properties: Vec<Vec<u8>>,
}

impl Connect {
    /// With clean start.
    pub(crate) fn new(id: &str) -> Self {
        Self {
            id: id.into(),
            clean: true,
            keep_alive: 0,
            will: None,
            username: None,
            password: None,
            properties: Vec::new(),
        }
    }

    /// A session that is resumed if it exists, and that is kept: clean start 0 with an expiry interval of an hour in
    /// MQTT 5, clean session 0 before.
    pub(crate) fn persistent(id: &str) -> Self {
        Self::new(id).resume().with(p32(SESSION_EXPIRY, 3600))
    }

    pub(crate) fn resume(mut self) -> Self {
        self.clean = false;
        self
    }

    pub(crate) fn clean(mut self) -> Self {
        self.clean = true;
        self
    }

    pub(crate) fn keep_alive(mut self, seconds: u16) -> Self {
        self.keep_alive = seconds;
        self
    }

    pub(crate) fn will(mut self, will: Will) -> Self {
        self.will = Some(will);
        self
    }

    pub(crate) fn username(mut self, name: &str) -> Self {
        self.username = Some(name.into());
        self
    }

    pub(crate) fn password(mut self, password: &[u8]) -> Self {
        self.password = Some(password.to_vec());
        self
    }

    /// Adds a property; ignored before MQTT 5.
    pub(crate) fn with(mut self, property: Vec<u8>) -> Self {
        self.properties.push(property);
        self
    }

    fn flags(&self) -> u8 {
        let will = self.will.as_ref().map_or(0, |will| 0x04 | will.qos << 3 | u8::from(will.retain) << 5);
        u8::from(self.clean) << 1
            | will
            | u8::from(self.password.is_some()) << 6
            | u8::from(self.username.is_some()) << 7
    }
}

impl Wire for Connect {
    fn wire(&self, version: Version) -> Vec<u8> {
        let name = if version == Version::V3_1 { "MQIsdp" } else { "MQTT" };
        let mut body = string(name);
        body.extend([version as u8, self.flags()]);
        body.extend(self.keep_alive.to_be_bytes());
        body.extend(properties(version, &self.properties));
        body.extend(string(&self.id));
        if let Some(will) = &self.will {
            body.extend(properties(version, &will.properties));
            body.extend(string(&will.topic));
            body.extend(binary(&will.payload));
        }
        if let Some(username) = &self.username {
            body.extend(string(username));
        }
        if let Some(password) = &self.password {
            body.extend(binary(password));
        }
        packet(0x10, &body)
    }
}

/// A will, for [`Connect::will`].
#[derive(Debug, Clone)]
pub(crate) struct Will {
    topic: String,
    payload: Vec<u8>,
    qos: u8,
    retain: bool,
    properties: Vec<Vec<u8>>,
}

impl Will {
    /// QoS 0, not retained.
    pub(crate) fn new(topic: &str, payload: &str) -> Self {
        Self { topic: topic.into(), payload: payload.into(), qos: 0, retain: false, properties: Vec::new() }
    }

    pub(crate) fn qos(mut self, qos: u8) -> Self {
        self.qos = qos;
        self
    }

    pub(crate) fn retain(mut self) -> Self {
        self.retain = true;
        self
    }

    pub(crate) fn with(mut self, property: Vec<u8>) -> Self {
        self.properties.push(property);
        self
    }
}

/// A PUBLISH.
#[derive(Debug, Clone)]
pub(crate) struct Publish {
    topic: String,
    payload: Vec<u8>,
    qos: u8,
    id: u16,
    dup: bool,
    retain: bool,
    properties: Vec<Vec<u8>>,
}

impl Publish {
    /// QoS 0.
    pub(crate) fn new(topic: &str, payload: impl AsRef<[u8]>) -> Self {
        Self {
            topic: topic.into(),
            payload: payload.as_ref().to_vec(),
            qos: 0,
            id: 0,
            dup: false,
            retain: false,
            properties: Vec::new(),
        }
    }

    /// QoS 1 with this identifier.
    pub(crate) fn qos1(self, id: u16) -> Self {
        self.qos(1, id)
    }

    /// QoS 2 with this identifier.
    pub(crate) fn qos2(self, id: u16) -> Self {
        self.qos(2, id)
    }

    pub(crate) fn qos(mut self, qos: u8, id: u16) -> Self {
        self.qos = qos;
        self.id = id;
        self
    }

    pub(crate) fn dup(mut self) -> Self {
        self.dup = true;
        self
    }

    pub(crate) fn retain(mut self) -> Self {
        self.retain = true;
        self
    }

    pub(crate) fn with(mut self, property: Vec<u8>) -> Self {
        self.properties.push(property);
        self
    }
}

impl Wire for Publish {
    fn wire(&self, version: Version) -> Vec<u8> {
        let mut body = string(&self.topic);
        if self.qos > 0 {
            body.extend(self.id.to_be_bytes());
        }
        body.extend(properties(version, &self.properties));
        body.extend(&self.payload);
        packet(0x30 | u8::from(self.dup) << 3 | self.qos << 1 | u8::from(self.retain), &body)
    }
}

/// A SUBSCRIBE.
#[derive(Debug, Clone)]
pub(crate) struct Subscribe {
    id: u16,
    filters: Vec<(String, u8)>,
    properties: Vec<Vec<u8>>,
}

impl Subscribe {
    /// Without filters yet.
    pub(crate) fn new(id: u16) -> Self {
        Self { id, filters: Vec::new(), properties: Vec::new() }
    }

    /// Adds a filter with its options byte.
    pub(crate) fn filter(mut self, filter: &str, options: u8) -> Self {
        self.filters.push((filter.into(), options));
        self
    }

    pub(crate) fn with(mut self, property: Vec<u8>) -> Self {
        self.properties.push(property);
        self
    }
}

impl Wire for Subscribe {
    fn wire(&self, version: Version) -> Vec<u8> {
        let mut body = self.id.to_be_bytes().to_vec();
        body.extend(properties(version, &self.properties));
        for (filter, options) in &self.filters {
            body.extend(string(filter));
            body.push(*options);
        }
        packet(0x82, &body)
    }
}

/// An UNSUBSCRIBE.
#[derive(Debug, Clone)]
pub(crate) struct Unsubscribe {
    id: u16,
    filters: Vec<String>,
    properties: Vec<Vec<u8>>,
}

impl Unsubscribe {
    /// Without filters yet.
    pub(crate) fn new(id: u16) -> Self {
        Self { id, filters: Vec::new(), properties: Vec::new() }
    }

    pub(crate) fn filter(mut self, filter: &str) -> Self {
        self.filters.push(filter.into());
        self
    }

    pub(crate) fn with(mut self, property: Vec<u8>) -> Self {
        self.properties.push(property);
        self
    }
}

impl Wire for Unsubscribe {
    fn wire(&self, version: Version) -> Vec<u8> {
        let mut body = self.id.to_be_bytes().to_vec();
        body.extend(properties(version, &self.properties));
        for filter in &self.filters {
            body.extend(string(filter));
        }
        packet(0xA2, &body)
    }
}

/// PUBACK, PUBREC, PUBREL, PUBCOMP, DISCONNECT or AUTH: an optional identifier, then reason and properties (MQTT 5).
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    header: u8,
    id: Option<u16>,
    reason: u8,
    properties: Vec<Vec<u8>>,
}

impl Answer {
    pub(crate) fn reason(mut self, reason: u8) -> Self {
        self.reason = reason;
        self
    }

    pub(crate) fn with(mut self, property: Vec<u8>) -> Self {
        self.properties.push(property);
        self
    }
}

impl Wire for Answer {
    fn wire(&self, version: Version) -> Vec<u8> {
        let mut body = self.id.map(|id| id.to_be_bytes().to_vec()).unwrap_or_default();
        if version.is_v5() && (self.reason != 0 || !self.properties.is_empty()) {
            body.push(self.reason);
            if !self.properties.is_empty() {
                body.extend(properties(version, &self.properties));
            }
        }
        packet(self.header, &body)
    }
}

pub(crate) fn puback(id: u16) -> Answer {
    Answer { header: 0x40, id: Some(id), reason: 0, properties: Vec::new() }
}

pub(crate) fn pubrec(id: u16) -> Answer {
    Answer { header: 0x50, id: Some(id), reason: 0, properties: Vec::new() }
}

pub(crate) fn pubrel(id: u16) -> Answer {
    Answer { header: 0x62, id: Some(id), reason: 0, properties: Vec::new() }
}

pub(crate) fn pubcomp(id: u16) -> Answer {
    Answer { header: 0x70, id: Some(id), reason: 0, properties: Vec::new() }
}

pub(crate) fn disconnect() -> Answer {
    Answer { header: 0xE0, id: None, reason: 0, properties: Vec::new() }
}

/// AUTH with a method and, if given, data.
pub(crate) fn auth(reason: u8, method: &str, data: Option<&[u8]>) -> Answer {
    let mut properties = vec![pstr(AUTHENTICATION_METHOD, method)];
    properties.extend(data.map(|data| pbin(AUTHENTICATION_DATA, data)));
    Answer { header: 0xF0, id: None, reason, properties }
}

pub(crate) const PINGREQ: [u8; 2] = [0xC0, 0];

impl Wire for Vec<u8> {
    fn wire(&self, _: Version) -> Vec<u8> {
        self.clone()
    }
}

impl Wire for &[u8] {
    fn wire(&self, _: Version) -> Vec<u8> {
        self.to_vec()
    }
}

impl<const N: usize> Wire for [u8; N] {
    fn wire(&self, _: Version) -> Vec<u8> {
        self.to_vec()
    }
}

/// Header, remaining length and body.
pub(crate) fn packet(header: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![header];
    bytes.extend(variable(body.len() as u32));
    bytes.extend(body);
    bytes
}

/// A variable byte integer.
pub(crate) fn variable(mut value: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let byte = (value % 128) as u8;
        value /= 128;
        bytes.push(if value > 0 { byte | 0x80 } else { byte });
        if value == 0 {
            return bytes;
        }
    }
}

/// A string with its length.
pub(crate) fn string(text: &str) -> Vec<u8> {
    binary(text.as_bytes())
}

/// Bytes with their length; also for strings that are none.
pub(crate) fn binary(bytes: &[u8]) -> Vec<u8> {
    let mut out = (bytes.len() as u16).to_be_bytes().to_vec();
    out.extend(bytes);
    out
}

/// Properties with their length; nothing before MQTT 5.
pub(crate) fn properties(version: Version, properties: &[Vec<u8>]) -> Vec<u8> {
    if !version.is_v5() {
        return Vec::new();
    }
    let all = properties.concat();
    let mut out = variable(all.len() as u32);
    out.extend(all);
    out
}

pub(crate) fn p8(id: u8, value: u8) -> Vec<u8> {
    vec![id, value]
}

pub(crate) fn p16(id: u8, value: u16) -> Vec<u8> {
    [&[id][..], &value.to_be_bytes()].concat()
}

pub(crate) fn p32(id: u8, value: u32) -> Vec<u8> {
    [&[id][..], &value.to_be_bytes()].concat()
}

pub(crate) fn pvar(id: u8, value: u32) -> Vec<u8> {
    [&[id][..], &variable(value)].concat()
}

pub(crate) fn pstr(id: u8, value: &str) -> Vec<u8> {
    [&[id][..], &string(value)].concat()
}

pub(crate) fn pbin(id: u8, value: &[u8]) -> Vec<u8> {
    [&[id][..], &binary(value)].concat()
}

/// A user property.
pub(crate) fn user(name: &str, value: &str) -> Vec<u8> {
    [&[USER_PROPERTY][..], &string(name), &string(value)].concat()
}

pub(crate) const PAYLOAD_FORMAT: u8 = 0x01;
pub(crate) const MESSAGE_EXPIRY: u8 = 0x02;
pub(crate) const CONTENT_TYPE: u8 = 0x03;
pub(crate) const RESPONSE_TOPIC: u8 = 0x08;
pub(crate) const CORRELATION_DATA: u8 = 0x09;
pub(crate) const SUBSCRIPTION_ID: u8 = 0x0B;
pub(crate) const SESSION_EXPIRY: u8 = 0x11;
pub(crate) const ASSIGNED_CLIENT_ID: u8 = 0x12;
pub(crate) const SERVER_KEEP_ALIVE: u8 = 0x13;
pub(crate) const AUTHENTICATION_METHOD: u8 = 0x15;
pub(crate) const AUTHENTICATION_DATA: u8 = 0x16;
pub(crate) const REQUEST_PROBLEM_INFORMATION: u8 = 0x17;
pub(crate) const WILL_DELAY: u8 = 0x18;
pub(crate) const REQUEST_RESPONSE_INFORMATION: u8 = 0x19;
pub(crate) const REASON_STRING: u8 = 0x1F;
pub(crate) const RECEIVE_MAXIMUM: u8 = 0x21;
pub(crate) const TOPIC_ALIAS_MAXIMUM: u8 = 0x22;
pub(crate) const TOPIC_ALIAS: u8 = 0x23;
pub(crate) const MAXIMUM_QOS: u8 = 0x24;
pub(crate) const RETAIN_AVAILABLE: u8 = 0x25;
pub(crate) const USER_PROPERTY: u8 = 0x26;
pub(crate) const MAXIMUM_PACKET_SIZE: u8 = 0x27;

/// Subscription options of SUBSCRIBE (section 3.8.3.1), to be added to the QoS.
pub(crate) const NO_LOCAL: u8 = 0x04;
pub(crate) const RETAIN_AS_PUBLISHED: u8 = 0x08;
pub(crate) const RETAIN_IF_NEW: u8 = 0x10;
pub(crate) const RETAIN_NEVER: u8 = 0x20;
