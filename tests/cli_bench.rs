//! `ferromq bench` and the load behind it, against a broker in this process. What is asserted is that the counts are
//! true; how fast it was is for people.
#![cfg(all(unix, feature = "cli"))]
#![allow(clippy::unwrap_used)] // what fails here fails the test

use std::{
    process::Command,
    sync::{Arc, Mutex},
    time::Duration,
};

use ferromq::{
    auth::{Acl, AclRule, Permission, Users},
    bench::{self, BenchError, Crowd, Layout, Plan, Retained},
    broker::{Event, EventSink, Hooks},
    codec::{QoS, Text, TopicFilter, Version},
    config::ListenerUrl,
    server::Broker,
};

#[test]
fn every_message_of_every_layout_is_accounted_for() {
    let broker = broker(Hooks::default());
    for (layout, publishers, subscribers) in [
        (Layout::Pairs, 5, 5),
        (Layout::FanIn, 5, 2),
        (Layout::FanOut, 2, 5),
        (Layout::Shared, 5, 3),
        (Layout::Matching, 3, 4),
    ] {
        for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
            for version in [Version::V3_1_1, Version::V5] {
                let plan = Plan { layout, publishers, subscribers, qos, version, ..plan(&broker) };
                let report = bench::run(&plan, |_| true).unwrap();
                let what = format!("{layout:?} {qos:?} {version:?}: {report:?}");
                assert!(report.published > 0 && report.received > 0 && report.latency.count() > 0, "{what}");
                assert_eq!((report.lost(), report.duplicates, report.out_of_order), (0, 0, 0), "{what}");
                assert_eq!((report.stalls, report.connections_lost), (0, 0), "{what}");
            }
        }
    }
}

#[test]
fn clients_have_the_identifiers_that_are_given_as_far_as_those_go() {
    #[derive(Debug, Default)]
    struct Names(Mutex<Vec<String>>);

    impl EventSink for Names {
        fn event(&self, event: &Event<'_>) {
            if let Event::Connected { info, .. } = event {
                self.0.lock().unwrap().push(info.client_id.to_string());
            }
        }
    }

    let names = Arc::new(Names::default());
    let broker = broker(Hooks { events: Some(Arc::clone(&names) as Arc<dyn EventSink>), ..Hooks::default() });
    let clients = ["one", "two", "three"].map(|name| Text::try_from(name).unwrap()).into();
    bench::run(&Plan { clients, ..plan(&broker) }, |_| true).unwrap();
    let mut found = names.0.lock().unwrap().clone();
    found.sort();
    // Two publishers, and the first of two subscribers.
    assert_eq!(found, ["bench-00000007-s1", "one", "three", "two"]);
}

#[test]
fn a_rate_is_kept_and_no_more() {
    let broker = broker(Hooks::default());
    let plan = Plan { rate: Some(1_000.0), warmup: Duration::ZERO, ..plan(&broker) };
    let report = bench::run(&plan, |_| true).unwrap();
    // Every time of the schedule up to the end is met, however late; 300 ms of it.
    assert!((300..=301).contains(&report.published_in_all), "{report:?}");
    assert_eq!(report.lost(), 0);
}

/// Messages that a broker withholds are lost, not forgotten.
#[test]
fn what_never_comes_out_is_lost_and_the_load_goes_on() {
    let none = AclRule {
        subscribe: false,
        filters: vec![TopicFilter::new("bench/+/1").unwrap()],
        ..AclRule::everything(Permission::Deny)
    };
    let acl = Acl::new(vec![none], Permission::Allow);
    let broker = broker(Hooks { authorizer: Some(Arc::new(acl)), ..Hooks::default() });
    let plan = Plan { duration: Duration::from_millis(1_500), window: 1, ..plan(&broker) };
    let report = bench::run(&plan, |_| true).unwrap();
    assert!(report.stalls >= 1, "{report:?}");
    assert!((1..=report.stalls + 1).contains(&report.lost()), "{report:?}");
}

/// They have subscribed to what the others get, and the others get all of it.
#[test]
fn who_never_reads_or_reads_slowly_is_not_counted() {
    let broker = broker(Hooks::default());
    for (stalled, slow) in [(2, 0), (0, 2)] {
        let layout = Layout::FanOut;
        let plan = Plan { layout, publishers: 1, stalled, slow, payload_bytes: 1_000, ..plan(&broker) };
        let report = bench::run(&plan, |_| true).unwrap();
        assert_eq!((report.lost(), report.duplicates, report.connections_lost), (0, 0, 0), "{report:?}");
        assert_eq!(report.expected_in_all, report.published_in_all * 2);
    }
}

#[test]
fn a_crowd_connects_subscribes_gets_its_messages_and_leaves_its_wills() {
    let broker = broker(Hooks::default());
    let server = plan(&broker).server;
    let crowd = Crowd {
        server,
        version: Version::V3_1_1,
        connections: 25,
        threads: 2,
        opening: 4,
        keep_alive: 60,
        idle: Duration::from_millis(10),
        subscribe: true,
        wills: true,
        run: 8,
        broker: Some(std::process::id()),
    };
    let report = crowd.run().unwrap();
    for step in [Some(report.connect), report.subscribe, Some(report.idle), report.deliver, report.wills] {
        assert!(step.unwrap().elapsed > Duration::ZERO, "{report:?}");
    }
    let with = |change: fn(&mut Crowd)| {
        let mut crowd = crowd.clone();
        change(&mut crowd);
        crowd.run().unwrap_err().to_string()
    };
    assert!(with(|crowd| crowd.connections = 0).contains("at least one connection"));
    assert!(with(|crowd| crowd.idle = Duration::from_mins(1)).contains("keep-alive"));
}

#[test]
fn retained_messages_come_to_each_subscriber_and_are_removed_in_the_end() {
    let broker = broker(Hooks::default());
    let retained = Retained {
        server: plan(&broker).server,
        version: Version::V3_1_1,
        count: 120,
        payload_bytes: 64,
        repeat: 2,
        run: 9,
        broker: Some(std::process::id()),
    };
    let report = retained.run().unwrap();
    assert!(report.elapsed > Duration::ZERO && report.stored.1 > Duration::ZERO, "{report:?}");
    assert!(broker.handle().retained("bench/#", 1).is_empty());
}

#[test]
fn what_stands_in_the_way_is_told() {
    let one = broker(Hooks::default());
    let address = one.listeners()[0].to_string();
    let of = |change: fn(&mut Plan)| {
        let mut plan = plan(&one);
        change(&mut plan);
        bench::run(&plan, |_| true).unwrap_err().to_string()
    };
    assert!(of(|plan| plan.subscribers = 3).contains("as many subscribers"), "{address}");
    assert!(of(|plan| plan.payload_bytes = 15).contains("16 bytes"));
    assert!(of(|plan| plan.rate = Some(0.0)).contains("more than 0"));
    assert!(of(|plan| plan.server = "127.0.0.1:1".into()).contains("127.0.0.1:1: Connection refused"));
    let deaf = AclRule { publish: false, ..AclRule::everything(Permission::Deny) };
    let acl = Acl::new(vec![deaf], Permission::Allow);
    let broker = broker(Hooks { authorizer: Some(Arc::new(acl)), ..Hooks::default() });
    let error = bench::run(&plan(&broker), |_| true).unwrap_err();
    assert!(matches!(&error, BenchError::Client { why, .. } if why.contains("refused")), "{error}");
}

#[test]
fn the_command_prints_json_and_draws() {
    let broker = broker(Hooks::default());
    let directory = tempfile::tempdir().unwrap();
    let picture = directory.path().join("run.svg");
    let port = broker.listeners()[0].to_string().rsplit_once(':').unwrap().1.to_owned();
    let arguments =
        ["bench", "-p", &port, "--publishers", "2", "-q", "1", "--seconds", "0.3", "--warmup", "0", "--json"];
    let mut command = Command::new(env!("CARGO_BIN_EXE_ferromq"));
    let output = command.args(arguments).arg("--plot").arg(&picture).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["lost"], 0);
    assert_eq!(report["plan"]["publishers"], 2);
    assert!(report["latency_us"]["p99"].as_f64().unwrap() > 0.0, "{report}");
    let drawn = std::fs::read_to_string(picture).unwrap();
    assert!(drawn.starts_with("<svg") && drawn.contains("pairs, 2 to 2") && drawn.ends_with("</svg>\n"));
}

#[test]
fn a_url_says_where_the_broker_is_and_who_loads_it() {
    let users = Users::new([("load".to_owned(), "s:3@".to_owned())], false);
    let broker = broker(Hooks { authenticator: Some(Arc::new(users)), ..Hooks::default() });
    let address = plan(&broker).server;
    let bench = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ferromq"));
        command.arg("bench").args(arguments);
        let output = command.output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let short = ["--layout", "fan-in", "--publishers", "1", "--seconds", "0.2", "--warmup", "0", "--json"];
    let with = |url: &str, more: &[&str]| bench(&[&["-L", url][..], more, &short[..]].concat());

    let (code, report, said) = with(&format!("mqtt://load:s:3@@{address}"), &[]);
    assert_eq!(code, Some(0), "{said}");
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    assert_eq!((&report["plan"]["layout"], &report["lost"]), (&"fan-in".into(), &0.into()));
    let (code, _, said) = with(&format!("mqtt://other@{address}"), &["-u", "load", "-P", "s:3@"]);
    assert_eq!(code, Some(0), "options win over the URL: {said}");

    let (code, _, said) = with(&format!("mqtt://load:wrong@{address}"), &[]);
    assert!(code == Some(1) && said.contains("refused"), "{code:?} {said}");
    for (arguments, fault) in [
        (&["-L", "mqtts://broker"][..], "MQTT over TCP alone, not mqtts"),
        (&["-L", "mqtt://broker/topic"][..], "makes topics of its own"),
        (&["-L", "mqtt://broker", "-p", "1883"][..], "cannot be used with"),
        (&["crowd", "-L", "mqtt://load:x@broker"][..], "has no user name"),
        (&["retained", "-L", "ws://broker"][..], "not ws"),
        (&["--clients", "/nowhere/clients"][..], "--clients /nowhere/clients: "),
    ] {
        let (code, _, said) = bench(arguments);
        assert!(code == Some(2) && said.contains(fault), "{arguments:?}: {code:?} {said}");
    }
}

fn broker(hooks: Hooks) -> Broker {
    let url: ListenerUrl = "tcp://127.0.0.1:0".parse().unwrap();
    Broker::builder().hooks(hooks).shards(2).listen(url).start().unwrap()
}

fn plan(broker: &Broker) -> Plan {
    Plan {
        server: broker.listeners()[0].to_string().trim_start_matches("tcp://").to_owned(),
        version: Version::V5,
        credentials: None,
        layout: Layout::Pairs,
        publishers: 2,
        subscribers: 2,
        filters: 60,
        depth: 0,
        stalled: 0,
        slow: 0,
        qos: QoS::AtMostOnce,
        payload_bytes: 64,
        rate: None,
        window: 8,
        duration: Duration::from_millis(300),
        warmup: Duration::from_millis(20),
        threads: 2,
        clients: Vec::new(),
        run: 7,
        broker: None,
    }
}
