//! A broker that can be loaded unevenly: its hashes are seeded with a known number, so that it can be said beforehand
//! which clients are at home on which shard. That of `ferromq broker` is random, as client identifiers come from strangers.
//!
//! `seeded --port PORT --shards N --config FILE` serves until it is ended. `seeded --shards N --home SHARD --clients COUNT`
//! prints identifiers of as many clients as are at home there, and without `--home` of the first that come to mind, one a
//! line, for `ferromq bench --clients`. benches/e2e/balance.py does both.

use std::{collections::HashMap, error::Error, fs, thread, time::Instant};

use ferromq::{
    broker::{Hooks, Settings, Shared},
    config::BrokerConfig,
    net::listener::ListenerUrl,
    server::Broker,
};

fn main() -> Result<(), Box<dyn Error>> {
    let options = options()?;
    let shards = options.get("--shards").ok_or(USAGE)?.parse()?;
    let Some(port) = options.get("--port") else { return print(&options, shards) };
    let config = match options.get("--config") {
        Some(path) => BrokerConfig::from_toml(&fs::read_to_string(path)?, path)?,
        None => BrokerConfig::default(),
    };
    let listener = ListenerUrl::local(port.parse()?);
    let _broker = Broker::builder().settings(config.settings()).shards(shards).seed(SEED).listen(listener).start()?;
    loop {
        // It may wake without a reason.
        thread::park();
    }
}

/// Identifiers of clients, of one shard if that is asked for.
fn print(options: &HashMap<String, String>, shards: usize) -> Result<(), Box<dyn Error>> {
    let count = options.get("--clients").ok_or(USAGE)?.parse()?;
    let home: Option<u8> = options.get("--home").map(|home| home.parse()).transpose()?;
    if home.is_some_and(|home| usize::from(home) >= shards) {
        return Err(format!("there are {shards} shards, from 0").into());
    }
    let shared = Shared::new(Settings::default(), Hooks::default(), shards, SEED, Instant::now());
    let names = (0_u64..).map(|number| format!("client-{number}"));
    for name in names.filter(|name| home.is_none_or(|home| shared.home(name).0 == home)).take(count) {
        println!("{name}");
    }
    Ok(())
}

/// `--name value`, again and again.
fn options() -> Result<HashMap<String, String>, Box<dyn Error>> {
    let mut words = std::env::args().skip(1);
    let mut found = HashMap::new();
    while let Some(name) = words.next() {
        let value = words.next().ok_or_else(|| format!("{name} needs a value"))?;
        found.insert(name, value);
    }
    Ok(found)
}

const USAGE: &str = "usage: seeded --shards N (--port PORT [--config FILE] | --clients COUNT [--home SHARD])";

/// Any would do.
const SEED: u64 = 1;
