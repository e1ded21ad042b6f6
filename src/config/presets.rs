//! Weaker brokers, by name, to test clients against what they will meet: capabilities and bounds, as tables of a
//! configuration that other settings are laid over.
//!
//! | | `aws-iot-core` | `azure-event-grid` | `minimal` | `impatient` |
//! |---|---|---|---|---|
//! | greatest QoS | 1 | 1 | 1 | 2 |
//! | retained messages | yes | no | no | yes |
//! | shared subscriptions | yes | no | no | yes |
//! | subscription identifiers | no | no | no | yes |
//! | largest packet | 128 KiB | 512 KiB | 4 KiB | 256 KiB |
//! | topic levels, bytes | 8, 256 | 8, 256 | 8, 128 | any |
//! | filters in a SUBSCRIBE, subscriptions | 8, 50 | 10, 50 | 4, 10 | any |
//! | unacknowledged, either way | 100 | 16 | 8 | 4 |
//! | topic aliases of clients, of the broker | 8, 8 | 10, 0 | 0, 0 | 32, 16 |
//! | longest keep-alive | 20 min | 1160 s | 60 s | 5 s |
//! | longest session | 1 h | 1 h | 5 min | 30 s |
//! | messages that wait for a client that is away | 1000 | 100 or 1 MiB | 10 or 16 KiB | 100 |
//! | CONNECT within | 10 s | 10 s | 5 s | 1 s |
//! | disconnected when not reading for | 30 s | 30 s | 10 s | 2 s |
//!
//! They are after the published limits of those services and go no further: what a service does in its own way (its
//! topics, its authentication, order that is not kept) is not imitated. `minimal` is the least that calls itself a
//! broker, and `impatient` one that ends connections for every reason there is.

/// The tables of a broker of this name.
pub fn preset(name: &str) -> Option<&'static str> {
    PRESETS.iter().find(|(known, _)| *known == name).map(|(_, tables)| *tables)
}

/// The names.
pub fn preset_names() -> impl Iterator<Item = &'static str> {
    PRESETS.iter().map(|(name, _)| *name)
}

const PRESETS: [(&str, &str); 4] = [
    ("aws-iot-core", AWS_IOT_CORE),
    ("azure-event-grid", AZURE_EVENT_GRID),
    ("minimal", MINIMAL),
    ("impatient", IMPATIENT),
];

const AWS_IOT_CORE: &str = r#"
[limits]
topic_levels_max = 8
topic_bytes_max = 256
filters_max = 8
subscriptions_max = 50
max_inflight = 100

[capabilities]
maximum_qos = 1
subscription_identifier_available = false
receive_maximum = 100
maximum_packet_size = "128 KiB"
topic_alias_maximum = 8
topic_alias_outgoing_max = 8
session_expiry_max = "1h"
keep_alive_max = "20min"
response_information = ""

[queue]
messages_max = 1000
"#;

const AZURE_EVENT_GRID: &str = r#"
[limits]
topic_levels_max = 8
topic_bytes_max = 256
filters_max = 10
subscriptions_max = 50
max_inflight = 16

[capabilities]
maximum_qos = 1
retain_available = false
subscription_identifier_available = false
shared_subscription_available = false
receive_maximum = 16
maximum_packet_size = "512 KiB"
topic_alias_maximum = 10
topic_alias_outgoing_max = 0
session_expiry_max = "1h"
keep_alive_max = "1160s"
response_information = ""

[queue]
messages_max = 100
bytes_max = "1 MiB"
"#;

const MINIMAL: &str = r#"
[limits]
connect_timeout = "5s"
topic_levels_max = 8
topic_bytes_max = 128
filters_max = 4
subscriptions_max = 10
max_inflight = 8

[capabilities]
maximum_qos = 1
retain_available = false
subscription_identifier_available = false
shared_subscription_available = false
receive_maximum = 8
maximum_packet_size = "4 KiB"
topic_alias_maximum = 0
topic_alias_outgoing_max = 0
session_expiry_max = "5min"
keep_alive_max = "60s"
response_information = ""

[queue]
messages_max = 10
bytes_max = "16 KiB"

[slow_consumer]
stall_timeout = "10s"
"#;

const IMPATIENT: &str = r#"
[limits]
connect_timeout = "1s"
max_inflight = 4

[capabilities]
receive_maximum = 4
maximum_packet_size = "256 KiB"
session_expiry_max = "30s"
keep_alive_max = "5s"

[queue]
messages_max = 100

[slow_consumer]
stall_timeout = "2s"
"#;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::BrokerConfig;

    #[test]
    fn every_preset_is_a_configuration_that_differs_from_the_default() {
        for name in preset_names() {
            let config = BrokerConfig::from_toml(preset(name).unwrap(), name).unwrap();
            assert_ne!(config.settings(), BrokerConfig::default().settings(), "{name}");
        }
        assert_eq!(preset("nobody"), None);
    }
}
