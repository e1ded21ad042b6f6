//! `broker.toml` through the public interface: every setting is reachable, every fault has its line and an answer, and
//! what is printed reads back.
#![cfg(feature = "config")]

use std::{num::NonZeroUsize, time::Duration};

use ferromq::{
    auth::{AclRule, Permission},
    broker::{self, Settings},
    codec::{self, QoS, TopicFilter},
    config::{BrokerConfig, ByteSize, ConfigFault, Hint, ListenerConfig, LogFormat, LogLevel, Secret},
    router::SharedStrategy,
};

/// Every key, none with its default.
const ALL: &str = r##"
shards = 3

[[listeners]]
url = "mqtt://[::1]:2883"
max_connections = 7
backlog = 16
reuse_port = false

[[listeners]]
url = "unix:///run/ferromq.sock"

[limits]
max_connections = 5000
connect_timeout = "250ms"
topic_levels_max = 9
topic_bytes_max = "1 KiB"
filters_max = 10
user_properties_max = 0
subscriptions_max = 11
retained_messages_max = 12
max_inflight = 13

[capabilities]
maximum_qos = 1
retain_available = false
wildcard_subscription_available = false
subscription_identifier_available = false
shared_subscription_available = false
receive_maximum = 14
maximum_packet_size = "1MB"
topic_alias_maximum = 0
topic_alias_outgoing_max = 15
session_expiry_max = "2h"
keep_alive_max = "1.5 min"
response_information = ""
check_payload_format = true

[queue]
messages_max = 17
bytes_max = 18
drop_policy = "oldest"
queue_qos0_offline = true

[slow_consumer]
outbox_soft = "19 KiB"
stall_timeout = 20
memory_watermark = "2 GiB"
staged_envelopes_max = 21

[shared]
strategy = "least-in-flight"

[sys]
interval = 0

[auth]
allow_anonymous = false
users = { alice = "secret", bob = "hidden" }

[acl]
no_match = "deny"

[[acl.rules]]
permission = "deny"
action = "subscribe"
users = ["bob"]
client_ids = ["b1", "b2"]
filters = ["plant/%u/#"]
literals = ["#"]

[[acl.rules]]
permission = "allow"

[log]
level = "debug"
format = "json"
"##;

#[test]
fn every_setting_of_the_broker_is_reachable() {
    // Taken apart without `..`: a new setting does not compile until it is here, and so in `ALL`.
    let Settings {
        limits,
        capabilities,
        session,
        slow_consumer,
        connect_timeout,
        connections_max,
        retained_messages_max,
        allow_anonymous,
        check_payload_format,
        shared_strategy,
        sys_interval,
    } = read(ALL).settings();
    assert_eq!(
        limits,
        codec::Limits {
            packet_bytes_max: 1_000_000,
            topic_levels_max: 9,
            topic_bytes_max: 1024,
            filters_max: 10,
            user_properties_max: 0,
        }
    );
    assert_eq!(
        capabilities,
        broker::Capabilities {
            maximum_qos: QoS::AtLeastOnce,
            retain_available: false,
            wildcard_subscription_available: false,
            subscription_identifier_available: false,
            shared_subscription_available: false,
            receive_maximum: 14,
            topic_alias_maximum: 0,
            topic_alias_outgoing_max: 15,
            session_expiry_max: 7200,
            keep_alive_max: 90,
            response_information: None,
        }
    );
    assert_eq!(
        session,
        broker::SessionLimits {
            inflight_max: 13,
            queued_messages_max: 17,
            queued_bytes_max: 18,
            drop_policy: broker::DropPolicy::Oldest,
            queue_qos0_offline: true,
            subscriptions_max: 11,
        }
    );
    assert_eq!(
        slow_consumer,
        broker::SlowConsumer {
            outbox_soft_bytes: 19 * 1024,
            stall_timeout: Duration::from_secs(20),
            memory_watermark_bytes: 2 << 30,
            staged_envelopes_max: 21,
        }
    );
    assert_eq!((connect_timeout, connections_max), (Duration::from_millis(250), 5000));
    assert_eq!((retained_messages_max, allow_anonymous, check_payload_format), (12, false, true));
    assert_eq!((shared_strategy, sys_interval), (SharedStrategy::LeastInFlight, None));
}

#[test]
fn the_shells_part_is_read_too() {
    let config = read(ALL);
    assert_eq!(config.shards, NonZeroUsize::new(3));
    let unix = ListenerConfig::new("unix:///run/ferromq.sock".parse().unwrap());
    let tcp = ListenerConfig {
        url: "tcp://[::1]:2883".parse().unwrap(),
        max_connections: 7,
        backlog: 16,
        reuse_port: Some(false),
        tls: None,
    };
    assert_eq!(config.listeners, [tcp, unix]);
    assert_eq!(config.auth.users["alice"], Secret::new("secret"));
    assert_eq!((config.log.level, config.log.format), (LogLevel::Debug, LogFormat::Json));
    assert_eq!(config.queue.bytes_max, ByteSize(18));
    let denied = AclRule {
        publish: false,
        users: vec!["bob".into()],
        client_ids: vec!["b1".into(), "b2".into()],
        filters: vec![TopicFilter::new("plant/%u/#").unwrap()],
        literals: vec!["#".into()],
        ..AclRule::everything(Permission::Deny)
    };
    assert_eq!(config.acl.no_match, Permission::Deny);
    assert_eq!(config.acl.rules, [denied, AclRule::everything(Permission::Allow)]);
    assert!(config.acl.authorizer().is_some() && BrokerConfig::default().acl.authorizer().is_none());
}

#[test]
fn all_is_all_keys_and_no_key_has_its_default_there() {
    let (all, default) = (read(ALL).to_toml(), BrokerConfig::default().to_toml());
    // The listeners' and the rules' keys apart: their number differs.
    let keys = |toml: &str| -> Vec<String> {
        let tables = toml.split_once("[limits]").expect("limits come after the listeners").1;
        let (tables, log) = tables.split_once("[log]").expect("the log comes after the rules");
        let tables = tables.split_once("\n[[acl.rules]]").map_or(tables, |(tables, _)| tables);
        let lines = tables
            .lines()
            .chain(log.lines())
            .map(|line| if line.starts_with(HIDDEN_USERS) { &line[2..] } else { line });
        lines.filter(|line| line.contains(" = ") && !line.starts_with('#')).map(str::to_owned).collect()
    };
    let (all, default) = (keys(&all), keys(&default));
    assert_eq!(all.len(), default.len());
    for (all, default) in all.iter().zip(&default) {
        assert_eq!(all.split_once(" = ").unwrap().0, default.split_once(" = ").unwrap().0);
        assert_ne!(all, default);
        assert!(ALL.contains(all.split_once(" = ").unwrap().0), "{all} is not in ALL");
    }
}

#[test]
fn an_empty_file_is_the_brokers_own_defaults() {
    let config = read("");
    assert_eq!(config, BrokerConfig::default());
    assert_eq!(config.settings(), Settings::default());
    assert_eq!(config.listeners, [ListenerConfig::new("tcp://127.0.0.1:1883".parse().unwrap())]);
    assert_eq!(read("shards = \"auto\"").shards, None);
    assert_eq!(read("listeners = []").listeners, []);
}

#[test]
fn what_is_printed_reads_back_the_same() {
    let without_users = ALL.replace("users = { alice = \"secret\", bob = \"hidden\" }", "");
    for config in [BrokerConfig::default(), read(&without_users), read("listeners = []")] {
        let text = config.to_toml();
        assert_eq!(read(&text), config, "{text}");
    }
}

#[test]
fn the_effective_configuration_explains_each_key_in_units() {
    let text = BrokerConfig::default().to_toml();
    for line in [
        "url = \"tcp://127.0.0.1:1883\"",
        "bytes_max = \"64 MiB\"",
        "session_expiry_max = \"never\"",
        "connect_timeout = \"10 s\"",
        "strategy = \"round-robin\"",
        "maximum_packet_size = \"268435460 B\"",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
    let lines: Vec<_> = text.lines().collect();
    for pair in lines.windows(2) {
        assert!(!pair[1].contains(" = ") || pair[0].starts_with('#'), "{} has no comment", pair[1]);
    }
}

#[test]
fn passwords_are_never_shown() {
    let config = read(ALL);
    for shown in [config.to_toml(), format!("{config:?}")] {
        assert!(shown.contains("alice") && !shown.contains("secret") && !shown.contains("hidden"), "{shown}");
    }
}

#[test]
fn what_hides_a_password_is_never_taken_for_one() {
    let shown = read(ALL).to_toml();
    assert!(shown.lines().any(|line| line.starts_with(HIDDEN_USERS)), "{shown}");
    let read_back = read(&shown);
    assert!(read_back.auth.users.is_empty());
    assert_eq!(read_back.settings(), read(ALL).settings());
}

#[test]
fn each_fault_is_told_with_its_line_and_an_answer() {
    for (text, error) in [
        (
            "\n\n[limits]\n# why\n\n\nmax_inflght = 10",
            "broker.toml:7: unknown key \"max_inflght\" in [limits]; did you mean \"max_inflight\"?",
        ),
        ("limts = 1", "broker.toml:1: unknown key \"limts\"; did you mean \"limits\"?"),
        (
            "[queue]\nreceive_maximum = 1",
            "broker.toml:2: unknown key \"receive_maximum\" in [queue]; it belongs in [capabilities]",
        ),
        ("[log]\ncolour = 1", "broker.toml:2: unknown key \"colour\" in [log]; known are level, format"),
        (
            "[[listeners]]\nurl = \"tcp://a\"\n[[listeners]]\nurl = \"tcp://b\"\nbacklg = 1",
            "broker.toml:5: unknown key \"backlg\" in [[listeners]]; did you mean \"backlog\"?",
        ),
        ("\n[[listeners]]\nbacklog = 1", "broker.toml:2: missing key \"url\" in [[listeners]]"),
        (
            "listeners = [\n  \"tcp://a\",\n  \"http://b\",\n]",
            "broker.toml:3: listeners[1]: listener URL \"http://b\": its scheme is not known; \
             write tcp://, tls://, ws://, wss:// or unix://",
        ),
        (
            "[[listeners]]\nurl = \"tcp://:1\"",
            "broker.toml:2: listeners[0].url: listener URL \"tcp://:1\": it has no host; \
             write 0.0.0.0 for every interface, 127.0.0.1 for this machine only",
        ),
        ("listeners = \"tcp://a\"", "broker.toml:1: listeners: invalid type: string \"tcp://a\", expected a sequence"),
        (
            "[[listeners]]\nurl = \"tcp://a\"\nreuse_port = \"no\"",
            "broker.toml:3: listeners[0].reuse_port: invalid value: string \"no\", expected true, false or \"auto\"",
        ),
        (
            "shards = 65",
            "broker.toml:1: shards: invalid value: integer `65`, expected a number from 0 to 64 or \"auto\"",
        ),
        (
            "shards = \"all\"",
            "broker.toml:1: shards: invalid value: string \"all\", expected a number from 0 to 64 or \"auto\"",
        ),
        (
            "[shared]\nstrategy = \"rondom\"",
            "broker.toml:2: shared.strategy: unknown value \"rondom\"; did you mean \"random\"?",
        ),
        (
            "[log]\nlevel = 3",
            "broker.toml:2: log.level: invalid type: integer, expected one of off, error, warn, info, debug, trace",
        ),
        (
            "[queue]\nbytes_max = \"64\"",
            "broker.toml:2: queue.bytes_max: \"64\" needs one of the units B, KiB, MiB, GiB, kB, MB, GB; \
             write for example \"64 KiB\"",
        ),
        (
            "[queue]\nbytes_max = true",
            "broker.toml:2: queue.bytes_max: invalid type: boolean `true`, expected a size such as \"64 KiB\" or a number of bytes",
        ),
        (
            "[auth]\nusers = { dev = \"********\" }",
            "broker.toml:2: auth.users.dev: this is what hides a password, not one: write the password itself",
        ),
        ("[queue]\nmessages_max = 0", "broker.toml:2: queue.messages_max: must be more than 0"),
        (
            "[capabilities]\nmaximum_packet_size = 127",
            "broker.toml:2: capabilities.maximum_packet_size: 127 B is out of range; from 128 B to 268435460 B",
        ),
        (
            "[queue]\nmessages_max = -1",
            "broker.toml:2: queue.messages_max: invalid value: integer `-1`, expected usize",
        ),
        (
            "[limits]\nmax_inflight = 0",
            "broker.toml:2: limits.max_inflight: invalid value: integer `0`, expected a nonzero u16",
        ),
        ("[limits]\nconnect_timeout = 0", "broker.toml:2: limits.connect_timeout: must be more than 0"),
        (
            "[limits]\ntopic_bytes_max = \"64 KiB\"",
            "broker.toml:2: limits.topic_bytes_max: 64 KiB is out of range; from 1 B to 65535 B",
        ),
        (
            "[capabilities]\nmaximum_packet_size = \"300 MiB\"",
            "broker.toml:2: capabilities.maximum_packet_size: 300 MiB is out of range; from 128 B to 268435460 B",
        ),
        ("[capabilities]\nmaximum_qos = 3", "broker.toml:2: capabilities.maximum_qos: there is no QoS 3"),
        (
            "[capabilities]\nkeep_alive_max = \"1d\"",
            "broker.toml:2: capabilities.keep_alive_max: 1 d is too much; at most 65535 s",
        ),
        (
            "[capabilities]\nkeep_alive_max = \"10ms\"",
            "broker.toml:2: capabilities.keep_alive_max: \"10ms\" is not a whole number of seconds",
        ),
        (
            "[sys]\ninterval = 1979-05-27",
            "broker.toml:2: sys.interval: invalid type: date, expected a time such as \"250ms\" or \"30s\", or a number of seconds",
        ),
        (
            "[[acl.rules]]\npermission = \"allow\"\n[[acl.rules]]\npermision = \"deny\"",
            "broker.toml:4: unknown key \"permision\" in [[acl.rules]]; did you mean \"permission\"?",
        ),
        ("[[acl.rules]]\naction = \"all\"", "broker.toml:1: missing key \"permission\" in [[acl.rules]]"),
        (
            "[[acl.rules]]\npermission = \"allow\"\nfilters = [\"a\", \"b/#/c\"]",
            "broker.toml:3: acl.rules[0].filters[1]: \"b/#/c\": # must be the last level of a filter, and alone in it",
        ),
        (
            "[[acl.rules]]\npermission = \"allow\"\nfilters = [\"$share/g/a\"]",
            "broker.toml:3: acl.rules[0].filters[0]: \"$share/g/a\": name the filter behind $share/group/, which is what \
             is judged",
        ),
        ("[acl]\nno_match = \"deni\"", "broker.toml:2: acl.no_match: unknown value \"deni\"; did you mean \"deny\"?"),
        ("[auth.users]\nalice = 1", "broker.toml:2: auth.users.alice: invalid type: integer `1`, expected a string"),
        (
            "[queue]\nmessages_max = 99999999999999999999",
            "broker.toml:2: queue.messages_max: 99999999999999999999 does not fit into 64 bits",
        ),
        ("limits = 1", "broker.toml:1: limits: invalid type: integer `1`, expected struct Limits"),
    ] {
        assert_eq!(BrokerConfig::from_toml(text, "broker.toml").unwrap_err().to_string(), error);
    }
}

#[test]
fn bad_toml_is_told_with_its_line() {
    for text in ["[limits]\n\nmax_inflight 10", "[limits]\n[queue]\n[limits]", "[limits]\nx = 1\nx = 2", "\n\n[limits"]
    {
        let error = BrokerConfig::from_toml(text, "b.toml").unwrap_err();
        assert!(error.to_string().starts_with("b.toml:3: "), "{error}");
        assert!(matches!(error.fault, ConfigFault::Syntax(_)), "{error:?}");
    }
}

#[test]
fn faults_are_data_as_well_as_words() {
    let error = BrokerConfig::from_toml("[sys]\nintervall = 1", "x").unwrap_err();
    let (key, table) = ("intervall".to_owned(), "[sys]".to_owned());
    assert_eq!(error.line, Some(2));
    assert_eq!(error.fault, ConfigFault::UnknownKey { key, table, hint: Hint::Nearest("interval") });
}

#[test]
fn a_file_is_loaded_and_an_absent_one_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("broker.toml");
    let error = BrokerConfig::load(&path).unwrap_err();
    assert!(error.to_string().starts_with(&format!("{}: cannot be read: ", path.display())), "{error}");
    std::fs::write(&path, ALL).unwrap();
    assert_eq!(BrokerConfig::load(&path).unwrap(), read(ALL));
}

/// How the users are printed.
const HIDDEN_USERS: &str = "# users = ";

fn read(text: &str) -> BrokerConfig {
    BrokerConfig::from_toml(text, "test.toml").unwrap_or_else(|error| panic!("{error}"))
}

/// Without rules, what is said of those that no rule is about holds for all.
#[test]
fn an_access_control_list_without_rules_denies_only_what_it_says() {
    let acl = |text: &str| BrokerConfig::from_toml(text, "broker.toml").unwrap().acl;
    assert!(acl("").authorizer().is_none());
    assert!(acl("[acl]").authorizer().is_none());
    assert!(acl("[acl]\nno_match = \"allow\"").authorizer().is_none());
    assert!(acl("[acl]\nno_match = \"deny\"").authorizer().is_some());
    let ruled = acl("[[acl.rules]]\npermission = \"allow\"\nusers = [\"a\"]");
    assert_eq!(ruled.no_match, Permission::Deny);
    assert!(ruled.authorizer().is_some());
}

#[test]
fn listeners_with_tls_name_their_certificates() {
    let read = |text: &str| BrokerConfig::from_toml(text, "broker.toml");
    let table =
        "[[listeners]]\nurl = \"tls://0.0.0.0:8883\"\ncert = \"c.pem\"\nkey = \"k.pem\"\nclient_ca = \"ca.pem\"\n";
    let config = read(table).unwrap();
    let tls = config.listeners[0].tls.clone().unwrap();
    assert_eq!((tls.cert, tls.key, tls.client_ca), ("c.pem".into(), "k.pem".into(), Some("ca.pem".into())));
    assert_eq!(read(&config.to_toml()).unwrap(), config, "what is printed reads back the same");
    let error = |text: &str| read(text).unwrap_err().to_string();
    assert!(error(&table.replace("key = \"k.pem\"\n", "")).contains("key is missing"));
    assert!(error(&table.replace("tls://", "tcp://")).contains("no use without TLS"));
    let inline = table.replace("k.pem", "-----BEGIN PRIVATE KEY-----");
    assert!(!read(&inline).unwrap().to_toml().contains("BEGIN PRIVATE KEY"), "keys are not printed");
}
