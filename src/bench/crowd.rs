//! Many connections that do next to nothing: what it takes a broker to accept them, to hold them, to reach each of them
//! once, and to see them go.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;

use super::{
    BenchError, Usage, address,
    process::{pause, resident_bytes, settled},
    wire::{Wire, connect, subscribe},
};
use crate::codec::{Packet, PacketType, Properties, Publish, QoS, TopicName, Version};

/// What is to be done.
#[derive(Debug, Clone)]
pub struct Crowd {
    /// `host:port` of the broker.
    pub server: String,
    /// Version of MQTT.
    pub version: Version,
    /// How many connections; a process needs a descriptor for each.
    pub connections: u32,
    /// Threads that open them.
    pub threads: u32,
    /// CONNECTs of a thread that are under way at a time.
    pub opening: u32,
    /// Keep-alive, seconds; longer than `idle`, as nobody sends PINGREQ.
    pub keep_alive: u16,
    /// How long they are left alone.
    pub idle: Duration,
    /// Whether each subscribes to a topic of its own, and gets one message in the end.
    pub subscribe: bool,
    /// Whether each leaves a will, and breaks off in the end.
    pub wills: bool,
    /// Tells the topics of this run from those of others.
    pub run: u32,
    /// The broker's process, to report what it took.
    pub broker: Option<u32>,
}

/// One step: how long it took, and what the broker took meanwhile.
#[derive(Debug, Clone, Copy, Default)]
pub struct Step {
    /// Until the last answer.
    pub elapsed: Duration,
    /// Until the broker had nothing more to do.
    pub broker: Option<Usage>,
    /// What this process's threads took.
    pub own: Option<Usage>,
}

/// What came of it.
#[derive(Debug, Clone)]
pub struct CrowdReport {
    /// From the first socket to the last CONNACK.
    pub connect: Step,
    /// From the first SUBSCRIBE to the last SUBACK.
    pub subscribe: Option<Step>,
    /// While nothing was sent.
    pub idle: Step,
    /// Resident bytes of the broker for each connection, after `idle`.
    pub bytes_each: Option<f64>,
    /// From the first PUBLISH until the last subscriber had its message.
    pub deliver: Option<Step>,
    /// From the first connection that broke until the last will had come.
    pub wills: Option<Step>,
}

impl Crowd {
    /// Opens, waits, delivers, ends.
    pub fn run(&self) -> Result<CrowdReport, BenchError> {
        self.check()?;
        let address = address(&self.server)?;
        // What the broker sets up for its first client is not counted.
        let mut watcher = self.open(address, None, "watcher", None)?;
        watcher.expect(PacketType::ConnAck, 1)?;
        watcher.send(&subscribe(&self.topic("will", None), QoS::AtMostOnce))?;
        watcher.expect(PacketType::SubAck, 1)?;
        let memory = self.memory();
        let mut wires = Vec::new();
        let connect = self.step(|| {
            let (opened, usage) = each(self.parts(), |part| self.connect(address, part))?;
            wires = opened;
            Ok(usage)
        })?;
        let subscribe = self.step_if(self.subscribe, || self.on_all(&mut wires, |part| self.subscribe_all(part)))?;
        let idle = self.step(|| {
            pause(self.idle);
            Ok(None)
        })?;
        let added = memory.zip(self.memory()).map(|(before, after)| after.saturating_sub(before));
        let bytes_each = added.map(|bytes| bytes as f64 / f64::from(self.connections));
        let deliver = self.step_if(self.subscribe, || self.deliver(&mut watcher, &mut wires))?;
        let wills = self.step_if(self.wills, || self.break_off(&mut watcher, std::mem::take(&mut wires)))?;
        wires.into_iter().chain([watcher]).for_each(Wire::abort);
        Ok(CrowdReport { connect, subscribe, idle, bytes_each, deliver, wills })
    }

    fn check(&self) -> Result<(), BenchError> {
        let fault = |what: &str| Err(BenchError::Plan(what.into()));
        if self.connections == 0 || self.threads == 0 || self.opening == 0 {
            return fault("at least one connection, one thread and one CONNECT at a time are needed");
        }
        if self.keep_alive > 0 && self.idle >= Duration::from_secs(self.keep_alive.into()) {
            return fault("the connections are idle for longer than their keep-alive allows");
        }
        Ok(())
    }

    /// Carries out a step; `work` says what its threads took. The broker is waited for, before and after.
    fn step(&self, work: impl FnOnce() -> Result<Option<Usage>, BenchError>) -> Result<Step, BenchError> {
        let before = self.usage();
        let begun = Instant::now();
        let own = work()?;
        let elapsed = begun.elapsed();
        let broker = before.zip(self.usage()).map(|(before, after)| after.since(before));
        Ok(Step { elapsed, broker, own })
    }

    fn step_if(
        &self,
        is_wanted: bool,
        work: impl FnOnce() -> Result<Option<Usage>, BenchError>,
    ) -> Result<Option<Step>, BenchError> {
        if is_wanted { self.step(work).map(Some) } else { Ok(None) }
    }

    /// The numbers of each thread's connections.
    fn parts(&self) -> Vec<std::ops::Range<u32>> {
        let each = self.connections.div_ceil(self.threads);
        (0..self.threads).map(|at| (at * each).min(self.connections)..((at + 1) * each).min(self.connections)).collect()
    }

    /// Opens connections, some at a time: their CONNECTs are under way before the first CONNACK is read.
    fn connect(&self, address: SocketAddr, part: std::ops::Range<u32>) -> Result<Vec<Wire>, BenchError> {
        let mut wires: Vec<Wire> = Vec::with_capacity(part.len());
        let mut answered = 0;
        for number in part {
            let will = self.wills.then(|| self.topic("will", Some(number)));
            wires.push(self.open(address, source(address, number), &format!("c{number}"), will.as_deref())?);
            if wires.len() - answered >= self.opening as usize {
                acknowledged(&mut wires[answered..], PacketType::ConnAck)?;
                answered = wires.len();
            }
        }
        acknowledged(&mut wires[answered..], PacketType::ConnAck)?;
        Ok(wires)
    }

    fn subscribe_all(&self, (first, part): (usize, &mut [Wire])) -> Result<(), BenchError> {
        for (at, chunk) in part.chunks_mut(self.opening as usize).enumerate() {
            for (number, wire) in chunk.iter_mut().enumerate() {
                let number = first + at * self.opening as usize + number;
                wire.send(&subscribe(&self.topic("own", Some(number as u32)), QoS::AtMostOnce))?;
            }
            acknowledged(chunk, PacketType::SubAck)?;
        }
        Ok(())
    }

    /// One message to each, and all of them read.
    fn deliver(&self, publisher: &mut Wire, wires: &mut [Wire]) -> Result<Option<Usage>, BenchError> {
        let payload = Bytes::from_static(&[b'.'; 64]);
        let mut out = Vec::new();
        for number in 0..self.connections {
            let topic = TopicName::new(&self.topic("own", Some(number))).expect("topics of the bench are valid");
            let (properties, payload) = (Properties::new(), payload.clone());
            let (qos, packet_id) = (QoS::AtMostOnce, None);
            let publish =
                Packet::Publish(Publish { dup: false, qos, retain: false, topic, packet_id, properties, payload });
            publish.encode(self.version, &mut out).map_err(|error| BenchError::Plan(error.to_string()))?;
        }
        publisher.write(&out)?;
        self.on_all(wires, |(_, part)| acknowledged(part, PacketType::Publish))
    }

    /// All end without DISCONNECT. Wills are read while they come: nobody may be slow here but the broker.
    fn break_off(&self, watcher: &mut Wire, wires: Vec<Wire>) -> Result<Option<Usage>, BenchError> {
        thread::scope(|scope| {
            scope.spawn(|| wires.into_iter().for_each(Wire::abort));
            watcher.expect(PacketType::Publish, self.connections as usize)
        })?;
        Ok(None)
    }

    /// Has each thread do something with its share of the connections.
    fn on_all(
        &self,
        wires: &mut [Wire],
        work: impl Fn((usize, &mut [Wire])) -> Result<(), BenchError> + Sync,
    ) -> Result<Option<Usage>, BenchError> {
        let share = wires.len().div_ceil(self.threads as usize).max(1);
        let parts = wires.chunks_mut(share).enumerate().map(|(at, part)| (at * share, part)).collect();
        let (_, usage) = each(parts, |part| work(part).map(|()| Vec::<()>::new()))?;
        Ok(usage)
    }

    fn open(
        &self,
        address: SocketAddr,
        from: Option<IpAddr>,
        who: &str,
        will: Option<&str>,
    ) -> Result<Wire, BenchError> {
        let name = format!("bench-{:08x}-{who}", self.run);
        Wire::open(address, from, &connect(self.version, &name, self.keep_alive, will.map(|topic| (topic, WILL_BYTES))))
    }

    /// Without a number: the filter of all.
    fn topic(&self, what: &str, number: Option<u32>) -> String {
        match number {
            Some(number) => format!("bench/{:08x}/{what}/{number}", self.run),
            None => format!("bench/{:08x}/{what}/+", self.run),
        }
    }

    fn memory(&self) -> Option<u64> {
        self.broker.and_then(resident_bytes)
    }

    fn usage(&self) -> Option<Usage> {
        self.broker.and_then(settled)
    }
}

/// One thread for each part; what they made, in order, and what they took.
fn each<P: Send, T: Send>(
    parts: Vec<P>,
    work: impl Fn(P) -> Result<Vec<T>, BenchError> + Sync,
) -> Result<(Vec<T>, Option<Usage>), BenchError> {
    thread::scope(|scope| {
        let work = &work;
        let threads: Vec<_> =
            parts.into_iter().map(|part| scope.spawn(move || (work(part), Usage::of_this_thread()))).collect();
        let (mut made, mut total) = (Vec::new(), Some(Duration::ZERO));
        for thread in threads {
            let joined = thread.join();
            let (found, usage) = joined.map_err(|_| BenchError::Plan("a thread of the load panicked".into()))?;
            made.extend(found?);
            total = total.zip(usage).map(|(sum, usage)| sum + usage.cpu);
        }
        Ok((made, total.map(|cpu| Usage { cpu })))
    })
}

/// Where a client connects from, if not from where all do. Once half the ports of an address are taken, the system looks
/// for a free one for hundreds of microseconds, which would be measured; but all of 127.0.0.0/8 is this machine.
fn source(address: SocketAddr, number: u32) -> Option<IpAddr> {
    let block = number / CLIENTS_PER_ADDRESS;
    let has_block = cfg!(target_os = "linux") && address.ip() == Ipv4Addr::LOCALHOST;
    has_block.then(|| Ipv4Addr::from_bits(Ipv4Addr::LOCALHOST.to_bits() + block).into())
}

/// Reads one packet of each.
fn acknowledged(wires: &mut [Wire], kind: PacketType) -> Result<(), BenchError> {
    wires.iter_mut().try_for_each(|wire| {
        wire.expect(kind, 1)?;
        wire.shrink();
        Ok(())
    })
}

/// A system has 28,000 ports for clients by default.
const CLIENTS_PER_ADDRESS: u32 = 4096;

const WILL_BYTES: usize = 64;
