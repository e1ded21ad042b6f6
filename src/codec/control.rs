//! PINGREQ and PINGRESP have no body; DISCONNECT and AUTH are a reason and properties.

use super::{Properties, ReasonCode};

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
