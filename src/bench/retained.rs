//! What it takes a broker to hand its retained messages to one who subscribes to all of them.

use std::{
    num::NonZeroU16,
    time::{Duration, Instant},
};

use bytes::Bytes;

use super::{
    BenchError, Usage, address,
    process::{resident_bytes, settled},
    wire::{Wire, connect, subscribe},
};
use crate::codec::{Packet, PacketType, Properties, Publish, QoS, TopicName, Version};

/// What is to be done.
#[derive(Debug, Clone)]
pub struct Retained {
    /// `host:port` of the broker.
    pub server: String,
    /// Version of MQTT.
    pub version: Version,
    /// Retained messages, each with a topic of its own.
    pub count: u32,
    /// Bytes of each payload.
    pub payload_bytes: usize,
    /// Subscribers, one after the other.
    pub repeat: u32,
    /// Tells the topics of this run from those of others.
    pub run: u32,
    /// The broker's process, to report what it took.
    pub broker: Option<u32>,
}

/// What came of it: means of one subscriber.
#[derive(Debug, Clone)]
pub struct RetainedReport {
    /// From SUBSCRIBE to the last message.
    pub elapsed: Duration,
    /// What the broker took meanwhile.
    pub broker: Option<Usage>,
    /// What the subscriber took.
    pub own: Option<Usage>,
    /// What the broker took to store them all, and how long that was.
    pub stored: (Option<Usage>, Duration),
    /// Bytes of resident memory for each message.
    pub bytes_each: Option<f64>,
}

impl Retained {
    /// Stores the messages, subscribes to all, and removes them.
    pub fn run(&self) -> Result<RetainedReport, BenchError> {
        if self.count == 0 || self.repeat == 0 {
            return Err(BenchError::Plan("at least one message and one subscriber are needed".into()));
        }
        let address = address(&self.server)?;
        let mut publisher = self.open(address, "p")?;
        let (memory, before, begun) = (self.memory(), self.usage(), Instant::now());
        self.store(&mut publisher, self.payload_bytes)?;
        let stored = (self.since(before), begun.elapsed());
        let bytes_each = memory.zip(self.memory()).map(|(before, after)| {
            let added = after.saturating_sub(before);
            added as f64 / f64::from(self.count)
        });
        let (mut elapsed, mut cpu, mut own) = (Duration::ZERO, Some(Duration::ZERO), Some(Duration::ZERO));
        for at in 0..self.repeat {
            let mut subscriber = self.open(address, &format!("s{at}"))?;
            let (before, own_before, begun) = (self.usage(), Usage::of_this_thread(), Instant::now());
            subscriber.send(&subscribe(&format!("bench/{:08x}/#", self.run), QoS::AtMostOnce))?;
            subscriber.expect(PacketType::Publish, self.count as usize)?;
            elapsed += begun.elapsed();
            let used = own_before.zip(Usage::of_this_thread()).map(|(before, after)| after.since(before));
            own = own.zip(used).map(|(sum, usage)| sum + usage.cpu);
            cpu = cpu.zip(self.since(before)).map(|(sum, usage)| sum + usage.cpu);
            subscriber.abort();
        }
        self.store(&mut publisher, 0)?;
        let mean = |cpu: Option<Duration>| cpu.map(|cpu| Usage { cpu: cpu / self.repeat });
        let elapsed = elapsed / self.repeat;
        Ok(RetainedReport { elapsed, broker: mean(cpu), own: mean(own), stored, bytes_each })
    }

    fn open(&self, address: std::net::SocketAddr, who: &str) -> Result<Wire, BenchError> {
        let name = format!("bench-{:08x}-{who}", self.run);
        let mut wire = Wire::open(address, None, &connect(self.version, &name, 0, None))?;
        wire.expect(PacketType::ConnAck, 1)?;
        Ok(wire)
    }

    /// Publishes all of them with QoS 1, a batch at a time; without a payload that removes them [MQTT-3.3.1-6].
    fn store(&self, wire: &mut Wire, payload_bytes: usize) -> Result<(), BenchError> {
        let payload = Bytes::from(vec![b'.'; payload_bytes]);
        let mut out = Vec::new();
        let mut first = 0;
        while first < self.count {
            let until = self.count.min(first + BATCH);
            out.clear();
            for number in first..until {
                let topic = format!("bench/{:08x}/site{}/dev{number}", self.run, number / 100);
                let topic = TopicName::new(&topic).expect("topics of the bench are valid");
                let publish = Packet::Publish(Publish {
                    dup: false,
                    qos: QoS::AtLeastOnce,
                    retain: true,
                    topic,
                    packet_id: NonZeroU16::new((number - first) as u16 + 1),
                    properties: Properties::new(),
                    payload: payload.clone(),
                });
                publish.encode(self.version, &mut out).map_err(|error| BenchError::Plan(error.to_string()))?;
            }
            wire.write(&out)?;
            wire.expect(PacketType::PubAck, (until - first) as usize)?;
            first = until;
        }
        Ok(())
    }

    fn memory(&self) -> Option<u64> {
        self.broker.and_then(resident_bytes)
    }

    fn usage(&self) -> Option<Usage> {
        self.broker.and_then(settled)
    }

    fn since(&self, before: Option<Usage>) -> Option<Usage> {
        before.zip(self.usage()).map(|(before, after)| after.since(before))
    }
}

/// Publications that wait for their PUBACK; fewer than any broker's receive maximum allows.
const BATCH: u32 = 50;
