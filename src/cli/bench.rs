//! `ferromq bench`: load for any broker, and an honest report.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use super::{
    EXIT_FAILED, EXIT_OK, Failure, Outcome,
    bench_once::{self, Once},
    bench_target::Target,
    connection::{positive_seconds, qos, random, text},
    interrupted, plot,
};
use crate::{
    bench::{self, Layout, Plan, Progress, Report},
    codec::{QoS, Text, Version},
};

/// Arguments of `ferromq bench`.
#[derive(Debug, Args)]
#[command(disable_help_flag = true, args_conflicts_with_subcommands = true)]
pub(super) struct Arguments {
    #[command(subcommand)]
    once: Option<Once>,
    /// Prints help.
    #[arg(long, action = clap::ArgAction::Help)]
    help: Option<bool>,
    #[command(flatten)]
    target: Target,
    /// User name.
    #[arg(short, long)]
    username: Option<String>,
    /// Password.
    #[arg(short = 'P', long = "pw")]
    password: Option<String>,
    /// Who publishes to whom.
    #[arg(short, long, value_enum, default_value_t = Shape::Pairs)]
    layout: Shape,
    /// Connections that publish.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    publishers: u32,
    /// Connections that subscribe [default: as many as publish; 1 for fan-in, 100 for fan-out]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    subscribers: Option<u32>,
    /// Filters of each subscriber, where each message matches one of all (layout matching).
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    filters: u32,
    /// Levels that make all topics deeper.
    #[arg(long, default_value_t = 0)]
    depth: u32,
    /// Further subscribers that never read; what they miss is not counted.
    #[arg(long, default_value_t = 0)]
    stalled: u32,
    /// Further subscribers that read 4 KiB ten times a second; the same.
    #[arg(long, default_value_t = 0)]
    slow: u32,
    /// Quality of service of both sides.
    #[arg(short, long, default_value = "0", value_parser = qos)]
    qos: QoS,
    /// Bytes of each payload, at least 16.
    #[arg(short = 's', long = "size", default_value_t = 64)]
    payload_bytes: usize,
    /// Messages a second in all; without it, as fast as they come out.
    #[arg(short, long)]
    rate: Option<f64>,
    /// Without a rate: messages of each publisher that are under way.
    #[arg(short, long, default_value_t = 32)]
    window: u32,
    /// Seconds that are measured.
    #[arg(long, default_value = "5", value_parser = positive_seconds)]
    seconds: Duration,
    /// Seconds before that which are not.
    #[arg(long, default_value_t = 1.0)]
    warmup: f64,
    /// Threads that play the clients; 0 takes half of the cores.
    #[arg(long, default_value_t = 0)]
    threads: usize,
    /// Client identifiers, one a line: of the publishers, then of the subscribers.
    #[arg(long, value_name = "FILE")]
    clients: Option<PathBuf>,
    /// Process of the broker on this machine, to report its processor time and memory (Linux).
    #[arg(long, value_name = "PID")]
    broker_pid: Option<u32>,
    /// Prints the report as JSON.
    #[arg(long)]
    json: bool,
    /// Draws latencies and rates into this SVG file.
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
    /// Shows no progress.
    #[arg(long)]
    quiet: bool,
}

/// Who publishes to whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Shape {
    /// Each publisher has a subscriber of its own.
    Pairs,
    /// Every subscriber has the messages of all publishers, by a wildcard.
    FanIn,
    /// Every subscriber has the messages of all publishers, who use one topic.
    FanOut,
    /// The subscribers share the messages of all publishers.
    Shared,
    /// Every subscriber holds many filters, exact ones and wildcards; each message matches one of all.
    Matching,
}

pub(super) async fn run(mut arguments: Arguments) -> Outcome {
    if let Some(once) = arguments.once.take() {
        return bench_once::run(once);
    }
    let plan = arguments.plan()?;
    let mut interruptions = interrupted()?;
    let goes_on = Arc::new(AtomicBool::new(true));
    let bar = arguments.bar(&plan);
    let (shown, watched, planned) = (bar.clone(), Arc::clone(&goes_on), plan.clone());
    let mut load = tokio::task::spawn_blocking(move || {
        bench::run(&planned, |progress| {
            show(&shown, &planned, progress);
            watched.load(Relaxed)
        })
    });
    let report = loop {
        tokio::select! {
            ended = &mut load => break ended?,
            _ = interruptions.recv() => goes_on.store(false, Relaxed),
        }
    };
    bar.finish_and_clear();
    let report = report?;
    if let Some(path) = &arguments.plot {
        let drawn = plot::draw(&title(&plan), &report);
        std::fs::write(path, drawn).map_err(|error| Failure::usage(format!("{}: {error}", path.display())))?;
    }
    if arguments.json {
        println!("{:#}", as_json(&plan, &report));
    } else {
        print(&plan, &report);
    }
    // A load that broke is no measurement, and a shell should notice.
    Ok(if report.connections_lost > 0 { EXIT_FAILED } else { EXIT_OK })
}

impl Arguments {
    fn plan(&self) -> Result<Plan, Failure> {
        let layout = match self.layout {
            Shape::Pairs => Layout::Pairs,
            Shape::FanIn => Layout::FanIn,
            Shape::FanOut => Layout::FanOut,
            Shape::Shared => Layout::Shared,
            Shape::Matching => Layout::Matching,
        };
        let (publishers, subscribers) = match (layout, self.subscribers) {
            (_, Some(subscribers)) => (self.publishers, subscribers),
            (Layout::Pairs | Layout::Shared, None) => (self.publishers, self.publishers),
            (Layout::FanIn, None) => (self.publishers, 1),
            (Layout::FanOut | Layout::Matching, None) => (self.publishers, 100),
        };
        if !(0.0..=3600.0).contains(&self.warmup) {
            return Err(Failure::usage("--warmup is a number of seconds from 0 to 3600"));
        }
        let server = self.target.server()?;
        Ok(Plan {
            credentials: self.credentials(server.user)?,
            server: server.address,
            version: self.target.version,
            layout,
            publishers,
            subscribers,
            filters: self.filters,
            depth: self.depth,
            stalled: self.stalled,
            slow: self.slow,
            qos: self.qos,
            payload_bytes: self.payload_bytes,
            rate: self.rate,
            window: self.window,
            duration: self.seconds,
            warmup: Duration::from_secs_f64(self.warmup),
            threads: self.threads,
            clients: self.clients()?,
            run: random() as u32,
            broker: self.broker_pid,
        })
    }

    fn clients(&self) -> Result<Vec<Text>, Failure> {
        let Some(path) = &self.clients else { return Ok(Vec::new()) };
        let lines = std::fs::read_to_string(path)
            .map_err(|error| Failure::usage(format!("--clients {}: {error}", path.display())))?;
        lines.lines().map(|line| text("--clients", line)).collect()
    }

    /// User name and password; options win over the URL.
    fn credentials(&self, of_url: Option<(String, Option<String>)>) -> Result<Option<(Text, Option<Bytes>)>, Failure> {
        let (name, password) = of_url.unzip();
        let name = match (&self.username, name) {
            (Some(name), _) => text("-u", name)?,
            (None, Some(name)) => text("-L", &name)?,
            (None, None) if self.password.is_some() => {
                return Err(Failure::usage("-P needs a user name: give it with -u"));
            }
            (None, None) => return Ok(None),
        };
        Ok(Some((name, self.password.clone().or(password.flatten()).map(Bytes::from))))
    }

    fn bar(&self, plan: &Plan) -> ProgressBar {
        if self.quiet {
            return ProgressBar::hidden();
        }
        let style = ProgressStyle::with_template("{bar:30} {msg}").expect("the template is valid");
        let total = (plan.warmup + plan.duration).as_millis();
        ProgressBar::new(u64::try_from(total).unwrap_or(u64::MAX)).with_style(style)
    }
}

fn show(bar: &ProgressBar, plan: &Plan, progress: Progress) {
    let seconds = progress.running.as_secs_f64();
    bar.set_position(u64::try_from(progress.running.as_millis()).unwrap_or(u64::MAX));
    if seconds == 0.0 {
        bar.set_message(format!("{} of {} connected", progress.ready, plan.publishers + plan.subscribers));
    } else {
        bar.set_message(format!("{seconds:.1} s  {:.0} messages/s", progress.received as f64 / seconds));
    }
}

fn title(plan: &Plan) -> String {
    let pace = match plan.rate {
        Some(rate) => format!("{rate} messages/s"),
        None => format!("{} under way", plan.window),
    };
    format!(
        "{}, {} to {}, {} B, QoS {}, MQTT {}, {pace}",
        layout_name(plan.layout),
        plan.publishers,
        plan.subscribers,
        plan.payload_bytes,
        plan.qos as u8,
        name(plan.version)
    )
}

/// As `--layout` takes it.
const fn layout_name(layout: Layout) -> &'static str {
    match layout {
        Layout::Pairs => "pairs",
        Layout::FanIn => "fan-in",
        Layout::FanOut => "fan-out",
        Layout::Shared => "shared",
        Layout::Matching => "matching",
    }
}

const fn name(version: Version) -> &'static str {
    match version {
        Version::V3_1 => "3.1",
        Version::V3_1_1 => "3.1.1",
        Version::V5 => "5.0",
    }
}

/// Shares of all messages that are told of.
const QUANTILES: [(&str, f64); 5] = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0)];

fn print(plan: &Plan, report: &Report) {
    println!("{}", title(plan));
    println!("received     {:>12.0} messages/s in {:.2} s", report.rate(), report.elapsed.as_secs_f64());
    let latencies =
        QUANTILES.map(|(name, share)| format!("{name} {:.0} us", report.latency.quantile(share) as f64 / 1e3));
    println!("latency      {}", latencies.join(", "));
    println!(
        "of {} sent: {} lost, {} duplicates, {} out of order",
        report.expected_in_all,
        report.lost(),
        report.duplicates,
        if plan.layout.is_spread() { "unknown".to_owned() } else { report.out_of_order.to_string() },
    );
    for (what, count) in [
        ("stalls", report.stalls),
        ("connections lost", report.connections_lost),
        ("stalled and slow ones that were ended", report.laggards_lost),
    ] {
        if count > 0 {
            println!("{what}: {count}");
        }
    }
    for (whose, usage) in [("broker", report.broker), ("load", report.own)] {
        if let Some(usage) = usage {
            let each = usage.cpu.as_secs_f64() * 1e6 / report.received.max(1) as f64;
            let share = usage.cpu.as_secs_f64() / report.elapsed.as_secs_f64() * 100.0;
            println!("{whose:<12} {each:>12.3} us of CPU a message, {share:.0} % of one core");
        }
    }
    if let Some(bytes) = report.broker_resident_bytes {
        println!("broker memory {:>11.1} MiB", bytes as f64 / f64::from(1 << 20));
    }
}

fn as_json(plan: &Plan, report: &Report) -> Value {
    let latency: serde_json::Map<_, _> = QUANTILES
        .iter()
        .map(|(name, share)| ((*name).to_owned(), json!(report.latency.quantile(*share) as f64 / 1e3)))
        .chain([("mean".to_owned(), json!(report.latency.mean() / 1e3))])
        .chain([("min".to_owned(), json!(report.latency.min() as f64 / 1e3))])
        .collect();
    let cpu = |usage: Option<bench::Usage>| usage.map(|usage| usage.cpu.as_secs_f64());
    json!({
        "plan": {
            "layout": layout_name(plan.layout),
            "publishers": plan.publishers,
            "subscribers": plan.subscribers,
            "qos": plan.qos as u8,
            "payload_bytes": plan.payload_bytes,
            "version": name(plan.version),
            "rate": plan.rate,
            "window": plan.window,
            "seconds": plan.duration.as_secs_f64(),
        },
        "elapsed_s": report.elapsed.as_secs_f64(),
        "load_threads": report.threads,
        "connect_s": report.connect_time.as_secs_f64(),
        "published": report.published,
        "received": report.received,
        "messages_per_s": report.rate(),
        "latency_us": latency,
        "expected_in_all": report.expected_in_all,
        "received_in_all": report.received_in_all,
        "lost": report.lost(),
        "duplicates": report.duplicates,
        "out_of_order": (!plan.layout.is_spread()).then_some(report.out_of_order),
        "stalls": report.stalls,
        "connections_lost": report.connections_lost,
        "laggards_lost": report.laggards_lost,
        "received_per_slice": report.slices,
        "slice_s": bench::SLICE.as_secs_f64(),
        "load_cpu_s": cpu(report.own),
        "broker_cpu_s": cpu(report.broker),
        "broker_resident_bytes": report.broker_resident_bytes,
    })
}
