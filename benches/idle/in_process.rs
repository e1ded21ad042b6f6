//! The same with in-process connections: as many as memory holds, for the slope. Both ends of each are in one process, of
//! its own, and count.

use std::{error::Error, process::Command, time::Instant};

use ferromq::{
    bench::{Usage, resident_bytes},
    net::duplex::Duplex,
    server::Broker,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::load::{connect, publish, subscribe, topic};

/// What a number of in-process connections took.
#[derive(Debug, Clone, Copy)]
pub(crate) struct InProcess {
    pub(crate) connections: usize,
    /// Both ends of a connection with a subscription, bytes.
    pub(crate) bytes: f64,
    /// CPU of a connect and a subscribe, both ends, microseconds.
    pub(crate) connect_us: f64,
    /// CPU of a PINGREQ and its answer, both ends, microseconds.
    pub(crate) ping_us: f64,
    /// One message to each: CPU for each, microseconds, and the time until all had theirs, milliseconds.
    pub(crate) deliver_us: f64,
    pub(crate) deliver_ms: f64,
}

/// Measures in a process of its own.
pub(crate) fn measure(connections: usize) -> Result<InProcess, Box<dyn Error>> {
    eprintln!("{connections} in-process connections");
    let number = connections.to_string();
    let output = Command::new(std::env::current_exe()?).args(["--in-process-child", &number]).output()?;
    if !output.status.success() {
        return Err(format!("the in-process run failed: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    let text = String::from_utf8(output.stdout)?;
    let numbers = text.split_ascii_whitespace().map(str::parse).collect::<Result<Vec<f64>, _>>()?;
    let [bytes, connect_us, ping_us, deliver_us, deliver_ms] = numbers[..] else {
        return Err(format!("the in-process run said {text:?}").into());
    };
    Ok(InProcess { connections, bytes, connect_us, ping_us, deliver_us, deliver_ms })
}

/// The process that measures.
pub(crate) fn run_child(connections: usize) -> Result<(), Box<dyn Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let broker = Broker::builder().start()?;
    let numbers = runtime.block_on(run(&broker, connections))?;
    println!("{}", numbers.map(|number| format!("{number:.3}")).join(" "));
    broker.shutdown();
    Ok(())
}

async fn run(broker: &Broker, connections: usize) -> Result<[f64; 5], Box<dyn Error>> {
    let per_connection = connections as f64;
    let mut publisher = open(broker, "publisher").await?;
    let mut clients = Vec::with_capacity(connections);
    let (bytes, start) = (resident(), cpu_us());
    while clients.len() < connections {
        let first = clients.len();
        for n in first..connections.min(first + BATCH) {
            let mut client = broker.connect_memory()?;
            client.write_all(&connect(&format!("device-{n:07}"), None)?).await?;
            client.write_all(&subscribe(&topic(n))?).await?;
            clients.push(client);
        }
        for client in &mut clients[first..] {
            client.read_exact(&mut [0; ANSWERS_BYTES]).await?;
        }
    }
    let bytes = (resident() - bytes) / per_connection;
    let connected = cpu_us();
    for some in clients.chunks_mut(BATCH) {
        for client in &mut *some {
            client.write_all(&[0xC0, 0]).await?;
        }
        for client in some {
            client.read_exact(&mut [0; 2]).await?;
        }
    }
    let pinged = cpu_us();
    let began = Instant::now();
    let mut n = 0;
    for some in clients.chunks_mut(BATCH) {
        let mut length = 0;
        for _ in 0..some.len() {
            let packet = publish(&topic(n))?;
            publisher.write_all(&packet).await?;
            (n, length) = (n + 1, packet.len());
        }
        let mut got = vec![0; length];
        for client in some {
            client.read_exact(&mut got).await?;
        }
    }
    let deliver_ms = began.elapsed().as_secs_f64() * 1e3;
    let delivered = cpu_us();
    let per = |from: f64, to: f64| (to - from) / per_connection;
    Ok([bytes, per(start, connected), per(connected, pinged), per(pinged, delivered), deliver_ms])
}

async fn open(broker: &Broker, client_id: &str) -> Result<Duplex, Box<dyn Error>> {
    let mut client = broker.connect_memory()?;
    client.write_all(&connect(client_id, None)?).await?;
    client.read_exact(&mut [0; 4]).await?;
    Ok(client)
}

fn cpu_us() -> f64 {
    Usage::of(std::process::id()).unwrap_or_default().cpu.as_nanos() as f64 / 1e3
}

fn resident() -> f64 {
    resident_bytes(std::process::id()).unwrap_or_default() as f64
}

/// CONNACK and SUBACK.
const ANSWERS_BYTES: usize = 4 + 5;

/// Connections whose answers are under way at a time.
const BATCH: usize = 1000;
