//! CONNECT and CONNACK.

use bytes::Bytes;

use super::{
    DecodeError, EncodeError, Frame, Limits, PacketType, Properties, QoS, ReasonCode, Source, Text, TopicName, Version,
    ack::{check_reason, read_reason},
    cursor::{self, Reader, field, violation},
    packet::{Context, Wire, check_flags},
    property::Place,
};

/// A client's request to connect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connect {
    /// Protocol version asked for.
    pub version: Version,
    /// Clean start (MQTT 5) or clean session (before).
    pub clean_start: bool,
    /// Bridge bit: some 3.x bridges set bit 7 of the protocol level (mosquitto). Kept so that it can be told.
    pub bridge: bool,
    /// Keep-alive, seconds; 0 switches it off.
    pub keep_alive: u16,
    /// Client identifier; may be empty.
    pub client_id: Text,
    /// Will message, if any.
    pub will: Option<Will>,
    /// User name, if any.
    pub username: Option<Text>,
    /// Password, if any.
    pub password: Option<Bytes>,
    /// MQTT 5 properties.
    pub properties: Properties,
}

/// The message a server publishes for a client that is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Will {
    /// Topic of the will.
    pub topic: TopicName,
    /// Payload of the will.
    pub payload: Bytes,
    /// Quality of service of the will.
    pub qos: QoS,
    /// Whether the will is retained.
    pub retain: bool,
    /// Will properties (MQTT 5), will delay interval among them.
    pub properties: Properties,
}

/// A server's answer to CONNECT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnAck {
    /// The server had a session for this client and resumes it.
    pub session_present: bool,
    /// Success, or why not. Encoded as the return code of section 3.2.2.3 before MQTT 5.
    pub reason: ReasonCode,
    /// MQTT 5 properties.
    pub properties: Properties,
}

impl Connect {
    /// The protocol level byte of a CONNECT's body, if its start holds one: tells a server in which version to answer
    /// a CONNECT that it could not decode. Bit 7 is that of a bridge.
    pub fn peek_level(body: &[u8]) -> Option<u8> {
        let mut reader = Reader::new(body);
        reader.binary(NAME).ok()?;
        reader.u8(LEVEL).ok()
    }

    pub(super) fn decode(frame: Frame<'_>, limits: &Limits, source: Source<'_>) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(frame.body);
        let (version, bridge) = read_version(&mut reader)?;
        let context = &Context { version, limits, source };
        frame.check_length(version)?;
        check_flags(PacketType::Connect, frame.flags(), version)?;
        let flags = Flags::read(&mut reader, version)?;
        let keep_alive = reader.u16(field!("the keep-alive of CONNECT"))?;
        let properties = Properties::decode(&mut reader, CONNECT, context)?;
        let client_id = reader.identifier(field!("the client identifier"))?;
        if version == Version::V3_1 && client_id.is_empty() {
            return Err(violation(ReasonCode::ClientIdentifierNotValid, "the client identifier is empty in MQTT 3.1"));
        }
        let will = match flags.will {
            Some((qos, retain)) => Some(Will::decode(&mut reader, qos, retain, context)?),
            None => None,
        };
        // MQTT 3.1 lets the remaining length overrule the two flags: "the User Name flag is set, but the User Name
        // string is missing. This is valid", section 3.1.
        let may_miss = version == Version::V3_1;
        let username = if flags.username && !(may_miss && reader.is_empty()) {
            Some(Text::from_checked(reader.identifier(field!("the user name"))?, source))
        } else {
            None
        };
        let password = if flags.password && !(may_miss && reader.is_empty()) {
            Some(source.take(reader.binary(field!("the password"))?))
        } else {
            None
        };
        reader.finish(field!("the payload of CONNECT"))?;
        Ok(Self {
            version,
            clean_start: flags.clean_start,
            bridge,
            keep_alive,
            client_id: Text::from_checked(client_id, source),
            will,
            username,
            password,
            properties,
        })
    }

    fn flags(&self) -> u8 {
        let will = self
            .will
            .as_ref()
            .map_or(0, |will| WILL | (will.qos as u8) << WILL_QOS_SHIFT | if will.retain { WILL_RETAIN } else { 0 });
        let bit = |set: bool, bit: u8| if set { bit } else { 0 };
        bit(self.clean_start, CLEAN_START)
            | will
            | bit(self.username.is_some(), USERNAME)
            | bit(self.password.is_some(), PASSWORD)
    }
}

impl Wire for Connect {
    fn header(&self) -> u8 {
        PacketType::Connect.header()
    }

    fn body_len(&self, _: Version) -> Result<usize, EncodeError> {
        if !self.version.is_v5() && self.password.is_some() && self.username.is_none() {
            return Err(EncodeError::NotAllowed(PASSWORD_ALONE));
        }
        if self.version == Version::V3_1 && self.client_id.is_empty() {
            return Err(EncodeError::NotAllowed("the client identifier is empty in MQTT 3.1"));
        }
        if self.version.is_v5() && self.bridge {
            return Err(EncodeError::NotInVersion("the bridge bit exists only before MQTT 5"));
        }
        let (name, _) = name_and_level(self.version);
        let properties_len = self.properties.block_len_in(self.version, CONNECT)?;
        let will_len = self.will.as_ref().map_or(Ok(0), |will| will.len(self.version))?;
        let username_len = self.username.as_ref().map_or(0, |username| 2 + username.len());
        let password_len =
            self.password.as_ref().map_or(Ok(0), |password| cursor::field_len(password.len(), "password"))?;
        let fixed_len = 2 + name.len() + 1 + 1 + 2;
        Ok(fixed_len + properties_len + 2 + self.client_id.len() + will_len + username_len + password_len)
    }

    fn put_body(&self, _: Version, out: &mut Vec<u8>) {
        let (name, level) = name_and_level(self.version);
        cursor::put_field(out, name);
        out.push(if self.bridge { level | BRIDGE } else { level });
        out.push(self.flags());
        cursor::put_u16(out, self.keep_alive);
        self.properties.put_block_in(self.version, out);
        cursor::put_field(out, self.client_id.as_bytes());
        if let Some(will) = &self.will {
            will.put(self.version, out);
        }
        if let Some(username) = &self.username {
            cursor::put_field(out, username.as_bytes());
        }
        if let Some(password) = &self.password {
            cursor::put_field(out, password);
        }
    }
}

impl Will {
    fn decode(reader: &mut Reader<'_>, qos: QoS, retain: bool, context: &Context<'_>) -> Result<Self, DecodeError> {
        let properties = Properties::decode(reader, Place::WILL, context)?;
        let topic = reader.topic_name(field!("the will topic"), context.limits)?;
        let payload = reader.binary(field!("the will payload"))?;
        let topic = TopicName::from_checked(Text::from_checked(topic, context.source));
        Ok(Self { topic, payload: context.source.take(payload), qos, retain, properties })
    }

    fn len(&self, version: Version) -> Result<usize, EncodeError> {
        if self.topic.as_str().is_empty() {
            return Err(EncodeError::NotAllowed("the will topic is empty"));
        }
        let payload_len = cursor::field_len(self.payload.len(), "will payload")?;
        Ok(self.properties.block_len_in(version, Place::WILL)? + 2 + self.topic.as_str().len() + payload_len)
    }

    fn put(&self, version: Version, out: &mut Vec<u8>) {
        self.properties.put_block_in(version, out);
        cursor::put_field(out, self.topic.as_text().as_bytes());
        cursor::put_field(out, &self.payload);
    }
}

impl ConnAck {
    pub(super) fn decode(body: &[u8], context: &Context<'_>) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body);
        let flags = reader.u8(field!("the acknowledge flags of CONNACK"))?;
        let session_present = match (context.version, flags) {
            (Version::V3_1, _) | (_, 0) => false, // 3.1 reserves the whole byte
            (_, 1) => true,
            _ => return Err(DecodeError::malformed("CONNACK has reserved acknowledge flags set [MQTT-3.2.2-1]")),
        };
        // A server that does not know MQTT 5 answers as 3.1.1 does; 0x01 is no reason code of a CONNACK of MQTT 5.
        let foreign = body == [0, UNACCEPTABLE_VERSION];
        let (reason, properties) = if context.version.is_v5() && !foreign {
            let reason = read_reason(&mut reader, PacketType::ConnAck, field!("the reason code of CONNACK"))?;
            (reason, Properties::decode(&mut reader, CONNACK, context)?)
        } else {
            let code = reader.u8(field!("the return code of CONNACK"))?;
            let reason = ReasonCode::from_connect_return_code(code)
                .ok_or(DecodeError::malformed("CONNACK has a reserved return code"))?;
            (reason, Properties::new())
        };
        reader.finish(field!("CONNACK"))?;
        let connack = Self { session_present, reason, properties };
        connack.check().map_err(DecodeError::protocol)?;
        Ok(connack)
    }

    /// A refusal has no session [MQTT-3.2.2-6], in 3.1.1 [MQTT-3.2.2-4].
    const fn check(&self) -> Result<(), &'static str> {
        if self.session_present && !matches!(self.reason, ReasonCode::Success) {
            return Err("CONNACK refuses the connection and has session present set [MQTT-3.2.2-6]");
        }
        Ok(())
    }
}

impl Wire for ConnAck {
    fn header(&self) -> u8 {
        PacketType::ConnAck.header()
    }

    fn body_len(&self, version: Version) -> Result<usize, EncodeError> {
        self.check().map_err(EncodeError::NotAllowed)?;
        if version.is_v5() {
            check_reason(self.reason, PacketType::ConnAck)?;
        }
        Ok(2 + self.properties.block_len_in(version, CONNACK)?)
    }

    fn put_body(&self, version: Version, out: &mut Vec<u8>) {
        // MQTT 3.1 has no session present flag.
        out.push(u8::from(self.session_present && version != Version::V3_1));
        if version.is_v5() {
            out.push(self.reason.as_u8());
            self.properties.put_block(out);
        } else {
            out.push(self.reason.connect_return_code());
        }
    }
}

/// The connect flags, section 3.1.2.3.
struct Flags {
    clean_start: bool,
    /// QoS and RETAIN of the will, if there is one.
    will: Option<(QoS, bool)>,
    username: bool,
    password: bool,
}

impl Flags {
    fn read(reader: &mut Reader<'_>, version: Version) -> Result<Self, DecodeError> {
        let byte = reader.u8(field!("the connect flags"))?;
        if byte & RESERVED != 0 && version != Version::V3_1 {
            return Err(DecodeError::malformed("the reserved connect flag is set [MQTT-3.1.2-3]"));
        }
        let qos = QoS::from_bits(byte >> WILL_QOS_SHIFT & 0b11)
            .ok_or(DecodeError::malformed("the will has QoS 3 [MQTT-3.1.2-12]"))?;
        let retain = byte & WILL_RETAIN != 0;
        let will = (byte & WILL != 0).then_some((qos, retain));
        if will.is_none() && (qos != QoS::AtMostOnce || retain) {
            return Err(DecodeError::malformed(
                "will QoS or will retain without a will [MQTT-3.1.2-11] [MQTT-3.1.2-13]",
            ));
        }
        let (username, password) = (byte & USERNAME != 0, byte & PASSWORD != 0);
        if password && !username && !version.is_v5() {
            return Err(DecodeError::malformed(PASSWORD_ALONE));
        }
        Ok(Self { clean_start: byte & CLEAN_START != 0, will, username, password })
    }
}

/// Reads protocol name and level. The rest of the packet need not make sense if they are unknown: a later version may
/// have changed it.
fn read_version(reader: &mut Reader<'_>) -> Result<(Version, bool), DecodeError> {
    let name = reader.binary(NAME)?;
    let level = reader.u8(LEVEL)?;
    let version = match (name, level) {
        (b"MQIsdp", 3 | 0x83) => Version::V3_1,
        (b"MQTT", 4 | 0x84) => Version::V3_1_1,
        (b"MQTT", 5) => Version::V5,
        (b"MQTT" | b"MQIsdp", _) => {
            return Err(violation(ReasonCode::UnsupportedProtocolVersion, "the protocol level is unknown"));
        }
        _ => {
            return Err(violation(ReasonCode::UnsupportedProtocolVersion, "the protocol name is not MQTT's"));
        }
    };
    Ok((version, level & BRIDGE != 0))
}

const fn name_and_level(version: Version) -> (&'static [u8], u8) {
    match version {
        Version::V3_1 => (b"MQIsdp", 3),
        Version::V3_1_1 => (b"MQTT", 4),
        Version::V5 => (b"MQTT", 5),
    }
}

const CONNECT: Place = Place::of(PacketType::Connect);
const CONNACK: Place = Place::of(PacketType::ConnAck);

const NAME: &cursor::Field = field!("the protocol name");
const LEVEL: &cursor::Field = field!("the protocol level");

/// Bits of the connect flags.
const RESERVED: u8 = 0b0000_0001;
const CLEAN_START: u8 = 0b0000_0010;
const WILL: u8 = 0b0000_0100;
const WILL_QOS_SHIFT: u32 = 3;
const WILL_RETAIN: u8 = 0b0010_0000;
const PASSWORD: u8 = 0b0100_0000;
const USERNAME: u8 = 0b1000_0000;

/// Bit of the protocol level that bridges of MQTT 3 set.
const BRIDGE: u8 = 0x80;

/// Return code 0x01 of CONNACK before MQTT 5.
const UNACCEPTABLE_VERSION: u8 = 1;

const PASSWORD_ALONE: &str = "CONNECT has a password without a user name [MQTT-3.1.2-22]";
