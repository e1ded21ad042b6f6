//! Many connections, one call under way on each, for some time; and a report.

use std::{
    cell::RefCell,
    collections::HashMap,
    rc::Rc,
    str::FromStr,
    time::{Duration, Instant},
};

use bytes::Bytes;
use serde_json::{Map, json};
use tokio::task::{JoinSet, LocalSet};
use tonic::{
    Request,
    client::Grpc,
    codegen::http::uri::PathAndQuery,
    transport::{Channel, Endpoint},
};
use tonic_prost::ProstCodec;

use crate::{
    echo::{Message, PATH},
    usage,
};

/// What is to be done.
pub struct Plan {
    port: u16,
    connections: usize,
    size: usize,
    seconds: Duration,
    warmup: Duration,
    broker: Option<u32>,
}

impl Plan {
    /// As the command line says.
    pub fn new(options: &HashMap<String, String>) -> Result<Self, String> {
        let seconds = |name, default| {
            let seconds = Duration::try_from_secs_f64(number(options, name, default)?);
            seconds.map_err(|error| format!("--{name}: {error}"))
        };
        Ok(Self {
            port: crate::port(options)?,
            connections: number(options, "connections", 5_000)?,
            size: number(options, "size", 1_024)?,
            seconds: seconds("seconds", 3.0)?,
            warmup: seconds("warmup", 0.5)?,
            broker: options.get("broker-pid").and_then(|pid| pid.parse().ok()),
        })
    }
}

fn number<T: FromStr>(options: &HashMap<String, String>, name: &str, default: T) -> Result<T, String> {
    match options.get(name) {
        None => Ok(default),
        Some(text) => text.parse().map_err(|_| format!("--{name}: {text:?} is no such number")),
    }
}

/// Connects, calls, prints the report.
pub fn run(plan: &Plan) -> Result<(), String> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| error.to_string())?;
    let report = LocalSet::new().block_on(&runtime, measure(plan))?;
    println!("{report:#}");
    Ok(())
}

async fn measure(plan: &Plan) -> Result<serde_json::Value, String> {
    let begun = Instant::now();
    let channels = connect(plan).await?;
    let connect_time = begun.elapsed();
    let seen = Rc::new(RefCell::new(Seen::default()));
    let mut callers = JoinSet::new();
    for channel in channels {
        callers.spawn_local(call(channel, Bytes::from(vec![b'.'; plan.size]), Rc::clone(&seen)));
    }
    // A round of all calls may take longer than the warm-up; a part of one is no measure of what a call costs.
    let warm = async {
        tokio::time::sleep(plan.warmup).await;
        while seen.borrow().callers < plan.connections && seen.borrow().fault.is_none() {
            tokio::time::sleep(STEP).await;
        }
    };
    tokio::time::timeout(WARM_TIMEOUT, warm).await.map_err(|_| "not every connection had an answer within a minute")?;
    let usage = || (plan.broker.and_then(usage::cpu), usage::cpu(std::process::id()));
    let (before, from) = (usage(), Instant::now());
    seen.borrow_mut().from = Some(from);
    tokio::time::sleep(plan.seconds).await;
    let (after, elapsed) = (usage(), from.elapsed());
    callers.abort_all();
    let mut seen = seen.take();
    if let Some(why) = seen.fault {
        return Err(why);
    }
    seen.latencies.sort_unstable();
    let since = |before: Option<Duration>, after: Option<Duration>| {
        before.zip(after).map(|(before, after)| after.saturating_sub(before).as_secs_f64())
    };
    let quantiles = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0)];
    let latency: Map<_, _> =
        quantiles.iter().map(|(name, share)| ((*name).to_owned(), json!(seen.quantile(*share)))).collect();
    Ok(json!({
        "plan": { "layout": "Echo", "connections": plan.connections, "payload_bytes": plan.size },
        "elapsed_s": elapsed.as_secs_f64(),
        "load_threads": 1,
        "connect_s": connect_time.as_secs_f64(),
        "received": seen.latencies.len(),
        "messages_per_s": seen.latencies.len() as f64 / elapsed.as_secs_f64(),
        "latency_us": latency,
        "broker_cpu_s": since(before.0, after.0),
        "load_cpu_s": since(before.1, after.1),
    }))
}

async fn connect(plan: &Plan) -> Result<Vec<Channel>, String> {
    let endpoint =
        Endpoint::from_shared(format!("http://127.0.0.1:{}", plan.port)).map_err(|error| error.to_string())?;
    let mut channels = Vec::with_capacity(plan.connections);
    for _ in 0..plan.connections {
        channels.push(endpoint.connect().await.map_err(|error| format!("connection {}: {error}", channels.len()))?);
    }
    Ok(channels)
}

/// One call after the other.
async fn call(channel: Channel, payload: Bytes, seen: Rc<RefCell<Seen>>) {
    let mut client = Grpc::new(channel);
    let path = PathAndQuery::from_static(PATH);
    let mut is_first = true;
    loop {
        let begun = Instant::now();
        let request = Request::new(Message { payload: payload.clone() });
        let answer = async {
            client.ready().await.map_err(|error| error.to_string())?;
            let codec = ProstCodec::<Message, Message>::default();
            client.unary(request, path.clone(), codec).await.map_err(|status| status.to_string())
        };
        let answer: Result<tonic::Response<Message>, String> = answer.await;
        let mut seen = seen.borrow_mut();
        seen.callers += usize::from(std::mem::take(&mut is_first));
        match answer {
            Ok(answer) if answer.get_ref().payload == payload => seen.answered(begun),
            Ok(_) => seen.fault = Some("an answer was not what was sent".into()),
            Err(why) => seen.fault = Some(why),
        }
        if seen.fault.is_some() {
            return;
        }
    }
}

/// How often is looked whether all have had an answer, and for how long.
const STEP: Duration = Duration::from_millis(5);
const WARM_TIMEOUT: Duration = Duration::from_mins(1);

/// What all callers have seen while it counted.
#[derive(Default)]
struct Seen {
    from: Option<Instant>,
    /// Callers that have had an answer.
    callers: usize,
    /// Microseconds, one a call.
    latencies: Vec<u32>,
    fault: Option<String>,
}

impl Seen {
    fn answered(&mut self, begun: Instant) {
        if self.from.is_some() {
            self.latencies.push(u32::try_from(begun.elapsed().as_micros()).unwrap_or(u32::MAX));
        }
    }

    /// Of sorted latencies: the one that this share of all does not exceed.
    #[allow(clippy::cast_sign_loss, clippy::cast_possible_truncation)] // a share of a count is neither
    fn quantile(&self, share: f64) -> u32 {
        let at = (share * self.latencies.len() as f64).ceil() as usize;
        self.latencies.get(at.saturating_sub(1)).copied().unwrap_or(0)
    }
}
