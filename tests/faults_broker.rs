//! Faults in front of a broker and of a proxy's upstream, over every transport.
#![cfg(feature = "net")]
#![allow(clippy::unwrap_used)] // what fails here fails the test

mod net_support;

use std::{
    io::{self, Read},
    time::Duration,
};

use ferromq::{
    client::ClientTls,
    clock::Clock,
    codec::{Packet, PacketType, QoS, ReasonCode},
    faults::{Action, Direction, Faults, Proxy, Select},
    net::listener::ListenerUrl,
    server::Broker,
};
use net_support::{Client, tcp};
use tokio::runtime::Runtime;

struct World {
    faults: Faults,
    broker: Broker,
    // Last, so that connections end before their tasks do.
    runtime: Runtime,
}

impl World {
    fn new(listeners: &[&str]) -> Self {
        let runtime = Runtime::new().unwrap();
        let faults = Faults::new(&Clock::adjustable(), runtime.handle().clone(), 1, 8);
        let listeners = listeners.iter().map(|url| url.parse::<ListenerUrl>().unwrap());
        let builder = Broker::builder().shards(2).faults(&faults);
        let broker = listeners.fold(builder, ferromq::server::BrokerBuilder::listen).start().unwrap();
        Self { faults, broker, runtime }
    }

    fn url(&self) -> &ListenerUrl {
        &self.broker.listeners()[0]
    }
}

fn of(packet: PacketType) -> Select {
    Select { packets: vec![packet], ..Select::default() }
}

#[test]
fn every_transport_goes_through_the_faults() {
    let folder = tempfile::tempdir().unwrap();
    let socket = format!("unix://{}", folder.path().join("s").display());
    let world = World::new(&["tcp://127.0.0.1:0", &socket, "ws://127.0.0.1:0/mqtt"]);
    for (at, url) in world.broker.listeners().iter().enumerate() {
        let mut client = Client::connect(url, &format!("client-{at}"));
        client.subscribe("t", QoS::AtMostOnce);
        client.publish("t", "round", QoS::AtMostOnce);
        assert_eq!(client.recv_publish().payload, "round");
    }
    let traces = world.faults.trace(None);
    assert_eq!(traces.len(), 3);
    // A WebSocket is not looked into.
    let named = |name: &str| traces.iter().any(|trace| trace.client_id == name);
    assert!(named("client-0") && named("client-1") && !named("client-2"));
    assert_eq!(traces[1].address.as_ref(), "unix");
    drop(world.broker);
    drop(world.runtime);
}

#[test]
fn a_puback_is_swallowed_and_settling_waits_for_what_is_held_back() {
    let world = World::new(&["tcp://127.0.0.1:0"]);
    let mut client = Client::connect(world.url(), "c");
    let rule = world.faults.add(Select { nth: Some(2), ..of(PacketType::PubAck) }, Action::Drop).unwrap();
    for payload in ["one", "two", "three"] {
        let publish = client.publish_packet("t", payload, QoS::AtLeastOnce);
        client.send(&publish);
    }
    let ids: Vec<_> = (0..2).map(|_| client.recv()).collect();
    let ids: Vec<_> = ids.iter().map(|ack| matches!(ack, Packet::PubAck(ack) if ack.packet_id.get() != 2)).collect();
    assert_eq!((ids, rule.hits(), rule.is_active()), (vec![true, true], 1, false));
    let delay = Action::Delay { by: Duration::from_hours(1), jitter: Duration::ZERO };
    world.faults.add(of(PacketType::PingResp), delay).unwrap();
    client.send(&Packet::PingReq);
    while world.faults.held() == 0 {
        std::thread::yield_now();
    }
    assert!(!world.broker.handle().is_settled());
    world.faults.clock().advance(Duration::from_secs(3599));
    assert!(!world.broker.handle().is_settled());
    world.faults.clock().advance(Duration::from_secs(2));
    world.broker.handle().wait_settled();
    assert!(matches!(client.recv(), Packet::PingResp));
}

#[test]
fn connections_are_refused_and_reset() {
    let world = World::new(&["tcp://127.0.0.1:0"]);
    let rule = world.faults.add(Select::default(), Action::Refuse(None)).unwrap();
    let mut refused = tcp(net_support::address(world.url()));
    assert_eq!(refused.read(&mut [0; 8]).unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    assert_eq!(world.broker.connect_memory().unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    assert_eq!(rule.hits(), 2);
    rule.remove();
    let mut client = Client::connect(world.url(), "c");
    assert_eq!(world.faults.drop_connections(Some("c")), 1);
    assert_eq!(client.try_recv().unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    assert_eq!(world.faults.drop_connections(None), 0);
}

#[test]
fn a_broker_that_stops_still_says_goodbye_through_the_faults() {
    let world = World::new(&["tcp://127.0.0.1:0"]);
    let mut client = Client::connect(world.url(), "c");
    world.broker.shutdown();
    let end = client.recv_end();
    assert!(matches!(&end[..], [Packet::Disconnect(last)] if last.reason == ReasonCode::ServerShuttingDown), "{end:?}");
}

#[test]
fn a_proxy_does_the_same_to_any_broker() {
    let (broker, url) = net_support::broker(|builder| builder);
    let runtime = Runtime::new().unwrap();
    let faults = Faults::new(&Clock::system(), runtime.handle().clone(), 1, 8);
    assert!(faults.clock().is_adjustable(), "delays need one");
    let upstream = url.to_string().parse().unwrap();
    let proxy =
        runtime.block_on(Proxy::start(faults.clone(), "127.0.0.1", 0, upstream, &ClientTls::default())).unwrap();
    let proxied: ListenerUrl = format!("tcp://{}", proxy.address()).parse().unwrap();
    let mut client = Client::connect(&proxied, "c");
    client.subscribe("t", QoS::AtMostOnce);
    let to_client = Select { direction: Some(Direction::ToClient), ..of(PacketType::Publish) };
    let rule = faults.add(Select { count: Some(1), ..to_client }, Action::Drop).unwrap();
    client.publish("t", "lost", QoS::AtMostOnce);
    client.publish("t", "kept", QoS::AtMostOnce);
    assert_eq!(client.recv_publish().payload, "kept");
    assert_eq!(rule.hits(), 1);
    assert!(faults.kick("c", ReasonCode::ServerShuttingDown));
    let end = client.recv_end();
    assert!(matches!(&end[..], [Packet::Disconnect(last)] if last.reason == ReasonCode::ServerShuttingDown), "{end:?}");
    broker.shutdown();
    let mut nobody = Client::open(&proxied);
    assert!(nobody.try_recv().is_err(), "the broker behind it is gone");
    runtime.block_on(proxy.stop());
    assert!(Client::raw_connect_fails(&proxied));
}

#[test]
fn a_dead_connection_lives_again_as_a_reset_when_its_rule_ends() {
    let world = World::new(&["tcp://127.0.0.1:0"]);
    let mut client = Client::connect(world.url(), "c");
    let rule = world.faults.add(Select::default(), Action::HalfOpen).unwrap();
    assert_eq!((rule.hits(), rule.is_active()), (1, true));
    client.send(&Packet::PingReq);
    // One that came after is not affected.
    Client::connect(world.url(), "d").ping_through();
    world.faults.clear();
    assert!(!rule.is_active());
    assert_eq!(client.try_recv().unwrap_err().kind(), io::ErrorKind::ConnectionReset);
}
