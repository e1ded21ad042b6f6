//! PINGREQ and PINGRESP have no body; DISCONNECT and AUTH are a reason and properties.

use super::{
    DecodeError, EncodeError, PacketType, Properties, ReasonCode, Version,
    ack::{check_reason, put_tail, read_reason, tail_len},
    cursor::{Reader, field},
    packet::{Context, Wire},
    property::Place,
};

/// The end of a connection, on purpose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disconnect {
    /// Why (MQTT 5; normal disconnection before).
    pub reason: ReasonCode,
    /// MQTT 5 properties.
    pub properties: Properties,
}

/// One step of enhanced authentication (MQTT 5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Auth {
    /// Success, continue authentication, or re-authenticate.
    pub reason: ReasonCode,
    /// Authentication method and data, reason string, user properties.
    pub properties: Properties,
}

impl Disconnect {
    /// A DISCONNECT without properties.
    pub const fn new(reason: ReasonCode) -> Self {
        Self { reason, properties: Properties::new() }
    }

    pub(super) fn decode(body: &[u8], context: &Context<'_>) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body);
        let mut disconnect = Self::new(ReasonCode::Success);
        // The reason and the properties may be left out, sections 3.14.2.1 and 3.14.2.2.1.
        if context.version.is_v5() && !reader.is_empty() {
            disconnect.reason =
                read_reason(&mut reader, PacketType::Disconnect, field!("the reason code of DISCONNECT"))?;
            if !reader.is_empty() {
                disconnect.properties = Properties::decode(&mut reader, Place::of(PacketType::Disconnect), context)?;
            }
        }
        reader.finish(field!("DISCONNECT"))?;
        Ok(disconnect)
    }
}

impl Wire for Disconnect {
    fn header(&self) -> u8 {
        PacketType::Disconnect.header()
    }

    fn body_len(&self, version: Version) -> Result<usize, EncodeError> {
        if !version.is_v5() {
            return Ok(0);
        }
        check_reason(self.reason, PacketType::Disconnect)?;
        tail_len(self.reason, &self.properties, Place::of(PacketType::Disconnect))
    }

    fn put_body(&self, version: Version, out: &mut Vec<u8>) {
        if version.is_v5() {
            put_tail(self.reason, &self.properties, out);
        }
    }
}

impl Auth {
    pub(super) fn decode(body: &[u8], context: &Context<'_>) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body);
        let mut auth = Self { reason: ReasonCode::Success, properties: Properties::new() };
        if reader.is_empty() {
            return Ok(auth); // section 3.15.2.1: success without properties has a remaining length of 0
        }
        auth.reason = read_reason(&mut reader, PacketType::Auth, field!("the reason code of AUTH"))?;
        auth.properties = Properties::decode(&mut reader, Place::of(PacketType::Auth), context)?;
        reader.finish(field!("AUTH"))?;
        auth.check_method().map_err(DecodeError::protocol)?;
        Ok(auth)
    }

    /// "It is a Protocol Error to omit the Authentication Method", section 3.15.2.2.2, but for the form that section
    /// 3.15.2.1 leaves empty.
    fn check_method(&self) -> Result<(), &'static str> {
        let is_bare = self.reason == ReasonCode::Success && self.properties.is_empty();
        if is_bare || self.properties.authentication_method().is_some() {
            return Ok(());
        }
        Err("AUTH has no authentication method")
    }
}

impl Wire for Auth {
    fn header(&self) -> u8 {
        PacketType::Auth.header()
    }

    fn body_len(&self, version: Version) -> Result<usize, EncodeError> {
        if !version.is_v5() {
            return Err(EncodeError::NotInVersion("AUTH exists only in MQTT 5"));
        }
        check_reason(self.reason, PacketType::Auth)?;
        self.check_method().map_err(EncodeError::NotAllowed)?;
        tail_len(self.reason, &self.properties, Place::of(PacketType::Auth))
    }

    fn put_body(&self, _: Version, out: &mut Vec<u8>) {
        put_tail(self.reason, &self.properties, out);
    }
}
