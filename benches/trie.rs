//! What routing costs: per match, per cache hit, per choice, per retained message.
//!
//! `cargo bench --bench trie`; each line is the time of one of what its name says.

use std::{fmt::Write as _, hint::black_box, sync::Arc};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};

use ferromq::router::{
    CacheLimits, Choice, FilterTrie, GroupHandle, Interest, Joining, RetainedStore, RouteCache, SessionKey, ShardId,
    ShardSet, SharedStrategy,
};

/// Numbers that look random and are the same in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let word = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

/// `site/S/line/L/device/D/KIND`: 20 sites, 25 lines, 100 devices, 10 kinds.
fn topic(random: &mut Random) -> String {
    let (site, line, device) = (random.below(20), random.below(25), random.below(100));
    format!("site/{site}/line/{line}/device/{device}/kind{}", random.below(10))
}

/// A topic with some levels made wildcards: three in ten filters have one `+`, one has two, one ends in `#`.
fn filter(random: &mut Random) -> String {
    let topic = topic(random);
    let mut levels: Vec<&str> = topic.split('/').collect();
    // The site stays, so that a topic matches tens of filters and not thousands.
    match random.below(10) {
        0..3 => levels[[3, 5, 6][random.below(3) as usize]] = "+",
        3 => (levels[3], levels[6]) = ("+", "+"),
        4 => {
            levels[6] = "#";
        }
        _ => {}
    }
    levels.join("/")
}

const SUBSCRIPTIONS: usize = 100_000;
const TOPICS: usize = 10_000;
/// The seed of every hasher here.
const SEED: u64 = 1;

fn matching(c: &mut Criterion) {
    let mut random = Random(1);
    let mut trie: FilterTrie<Vec<u32>> = FilterTrie::new(SEED);
    for n in 0..SUBSCRIPTIONS {
        trie.entry_or_default(&filter(&mut random)).push(n as u32 % 100);
    }
    let topics: Vec<String> = (0..TOPICS).map(|_| topic(&mut random)).collect();
    let mut matched = 0;
    for topic in &topics {
        trie.for_each_match(topic, |clients| matched += clients.len());
    }
    let mut group = c.benchmark_group(format!("100k subscriptions, {} distinct filters", trie.len()));
    let mut at = 0;
    let mut next = || {
        at = (at + 1) % TOPICS;
        &topics[at]
    };
    group.bench_function(format!("match, about {} subscriptions each", (matched + TOPICS / 2) / TOPICS), |b| {
        b.iter(|| {
            let mut clients = 0;
            trie.for_each_match(next(), |value| clients += value.len());
            clients
        });
    });
    group.bench_function("a topic that nobody wants", |b| {
        b.iter(|| {
            let mut clients = 0;
            trie.for_each_match(black_box("plant/7/line/3/device/12/kind1"), |value| clients += value.len());
            clients
        });
    });
    let filters: Vec<String> = (0..TOPICS).map(|n| format!("session/{n}/+/#")).collect();
    group.bench_function("insert and remove a new filter", |b| {
        b.iter(|| {
            at = (at + 1) % TOPICS;
            trie.insert(&filters[at], Vec::new());
            trie.remove(&filters[at])
        });
    });
    group.finish();
}

fn routes(c: &mut Criterion) {
    let mut random = Random(2);
    let interest = Interest::new(SEED, SharedStrategy::RoundRobin);
    for _ in 0..SUBSCRIPTIONS {
        interest.add(&filter(&mut random), ShardId(random.below(8) as u8));
    }
    let topics: Vec<String> = (0..TOPICS).map(|_| topic(&mut random)).collect();
    let mut cache: RouteCache<ShardSet> = RouteCache::new(CacheLimits { entries_max: 1 << 15, bytes_max: 16 << 20 });
    for name in &topics {
        let topic = interest.hasher().topic(name);
        let stripes = interest.hasher().stripes(topic);
        cache.insert(topic, stripes, interest.generation(stripes), interest.targets(name), 0);
    }
    let mut group = c.benchmark_group("route of one of 10k topics");
    let mut at = 0;
    group.bench_function("hash and cache hit", |b| {
        b.iter(|| {
            at = (at + 1) % TOPICS;
            let topic = interest.hasher().topic(&topics[at]);
            ***cache.get(topic, |stripes| interest.generation(stripes)).expect("cached above")
        });
    });
    group.bench_function("hash and cache hit, one hot topic", |b| {
        b.iter(|| {
            let topic = interest.hasher().topic(black_box(&topics[0]));
            ***cache.get(topic, |stripes| interest.generation(stripes)).expect("cached above")
        });
    });
    group.bench_function("interest table", |b| {
        b.iter(|| {
            at = (at + 1) % TOPICS;
            interest.targets(&topics[at])
        });
    });
    group.bench_function("cache miss, computed and cached", |b| {
        b.iter(|| {
            at = (at + 1) % TOPICS;
            let topic = interest.hasher().topic(&topics[at]);
            let stripes = interest.hasher().stripes(topic);
            let generation = interest.generation(stripes);
            let targets = interest.targets(topic.as_str());
            black_box(interest.groups(topic.as_str()));
            cache.insert(topic, stripes, generation, targets, 0);
        });
    });
    group.finish();
}

fn shared(c: &mut Criterion) {
    let mut group = c.benchmark_group("choose one of 100 members");
    for strategy in
        [SharedStrategy::RoundRobin, SharedStrategy::Sticky, SharedStrategy::HashTopic, SharedStrategy::LeastInFlight]
    {
        let interest = Interest::new(SEED, strategy);
        for n in 0..100_u32 {
            let client_id = format!("worker-{n}").into();
            let joining = Joining { shard: ShardId(0), session: SessionKey::first(n), client_id, options: 0 };
            interest.join("workers", "jobs/#", joining).set_online(true);
        }
        let mut handle = GroupHandle::new(Arc::clone(&interest.groups("jobs/1")[0]));
        let mut random = Random(3);
        group.bench_function(format!("{strategy:?}"), |b| {
            b.iter(|| {
                let word = random.next();
                let choice = Choice { publisher: word, topic: word, random: word, ms: 0 };
                handle.choose(&choice, None).map(|member| member.session())
            });
        });
    }
    group.finish();
}

fn retained(c: &mut Criterion) {
    const DEVICES: u64 = 10_000;
    const KINDS: u64 = 10;
    let mut store: RetainedStore<u64> = RetainedStore::new(SEED);
    let mut random = Random(4);
    let mut text = String::new();
    let mut all: Vec<u64> = (0..DEVICES * KINDS).collect();
    // Arrival in no order, as in life: neighbours in the tree are not neighbours in memory.
    for at in (1..all.len()).rev() {
        all.swap(at, random.below(at as u64 + 1) as usize);
    }
    for n in &all {
        text.clear();
        write!(text, "plant/device{}/kind{}", n / KINDS, n % KINDS).expect("a string grows");
        store.insert(&text, *n);
    }
    let mut group = c.benchmark_group("100k retained messages");
    for (filter, found) in [("#", DEVICES * KINDS), ("plant/+/kind7", DEVICES), ("plant/device77/+", KINDS)] {
        group.throughput(Throughput::Elements(found));
        group.bench_function(format!("scan {filter} in slices of 1000, {found} found"), |b| {
            b.iter(|| {
                let (mut sum, mut count, mut cursor) = (0, 0, None);
                loop {
                    cursor = store.scan(filter, cursor, 1000, |topic, message| {
                        sum += message + topic.len() as u64;
                        count += 1;
                    });
                    if cursor.is_none() {
                        break;
                    }
                }
                assert_eq!(count, found);
                sum
            });
        });
    }
    group.throughput(Throughput::Elements(1));
    let mut at = 0;
    let topics: Vec<String> =
        all.iter().take(TOPICS).map(|n| format!("plant/device{}/kind{}", n / KINDS, n % KINDS)).collect();
    group.bench_function("replace", |b| {
        b.iter(|| {
            at = (at + 1) % TOPICS;
            store.insert(&topics[at], 1)
        });
    });
    group.bench_function("remove and insert", |b| {
        b.iter(|| {
            at = (at + 1) % TOPICS;
            let message = store.remove(&topics[at]).expect("was inserted");
            store.insert(&topics[at], message)
        });
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20);
    targets = matching, routes, shared, retained
}
criterion_main!(benches);
