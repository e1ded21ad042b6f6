//! `ferromq broker --store`, killed in the middle of its work, again and again: what was acknowledged is there when it is
//! started anew, QoS 2 once, with another number of threads, too.
#![cfg(all(unix, feature = "cli"))]
#![allow(clippy::unwrap_used)] // what fails here fails the test

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use ferromq::{
    broker::Message,
    client::{
        Client, ClientOptions, DisconnectOptions, MailboxOptions, PublishRequest, Reconnect, SubscribeRequest,
        Subscription,
    },
    codec::{Limits, QoS, SubscriptionOptions, Text, TopicFilter, TopicName},
    disk::Durability,
    net::listener::ListenerUrl,
    server::{Broker, StartError},
    store::StoreError,
};
use parking_lot::Mutex;
use tokio::sync::watch;

/// A broker of another process.
struct Process {
    child: Child,
    url: String,
}

impl Process {
    fn start(store: &Path, listen: &str, shards: &str) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_ferromq"))
            .args(["broker", "--listen", listen, "--shards", shards, "--log-level", "warn", "--store"])
            .arg(store)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let lines: Vec<_> = lines.map(Result::unwrap).take(2).collect();
        let url = lines[0].strip_prefix("listening ").unwrap().to_owned();
        assert_eq!(lines[1], "ready");
        Self { child, url }
    }

    /// SIGKILL.
    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn options(url: &str, client_id: &'static str) -> ClientOptions {
    let reconnect = Reconnect { max: Duration::from_millis(100), ..Reconnect::default() };
    ClientOptions::parse(url)
        .unwrap()
        .client_id(Text::from_static(client_id))
        .persistent(3600)
        .reconnect(Some(reconnect))
}

async fn subscribe(client: &Client, filter: &'static str) -> Subscription {
    let filter = TopicFilter::parse(Text::from_static(filter), &Limits::default()).unwrap();
    let options = SubscriptionOptions { qos: QoS::ExactlyOnce, ..SubscriptionOptions::default() };
    client.subscribe(SubscribeRequest::new(filter, options), MailboxOptions::default()).await.unwrap()
}

/// What a publisher was told.
#[derive(Default)]
struct Told {
    acknowledged: BTreeSet<u32>,
    kept: BTreeMap<String, u32>,
}

/// Publishes all numbers, a window of them at a time; each third one to be retained.
async fn publish_all(client: Client, told: Arc<Mutex<Told>>, progress: watch::Sender<usize>) {
    let numbers = Arc::new(Mutex::new(0..MESSAGES));
    let worker = |lane: u32| {
        let (client, numbers, told, progress) =
            (client.clone(), Arc::clone(&numbers), Arc::clone(&told), progress.clone());
        tokio::spawn(async move {
            loop {
                let Some(number) = numbers.lock().next() else { return };
                let qos = if number % 2 == 0 { QoS::AtLeastOnce } else { QoS::ExactlyOnce };
                // One lane alone writes to a retained topic, so its last acknowledged message is the last one.
                let keeps = number % 3 == 0;
                let topic = if keeps { format!("load/kept/{lane}") } else { format!("load/{qos:?}") };
                let request = PublishRequest::new(topic.clone(), number.to_string()).qos(qos);
                let request = if keeps { request.retain() } else { request };
                client.publish(request).await.unwrap();
                let mut told = told.lock();
                told.acknowledged.insert(number);
                if keeps {
                    told.kept.insert(topic, number);
                }
                progress.send_replace(told.acknowledged.len());
            }
        })
    };
    let workers: Vec<_> = (0..LANES).map(worker).collect();
    for worker in workers {
        worker.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_being_killed() {
    let place = tempfile::tempdir().unwrap();
    let mut broker = Process::start(place.path(), "tcp://127.0.0.1:0", "2");
    let url = broker.url.clone();
    let (publisher, online) = (
        Client::connect(options(&url, "publisher")).await.unwrap(),
        Client::connect(options(&url, "online")).await.unwrap(),
    );
    let mut of_online = subscribe(&online, "load/#").await;
    let offline = Client::connect(options(&url, "offline")).await.unwrap();
    let of_offline = subscribe(&offline, "load/#").await;
    of_offline.leave();
    // Before anything is published: what it still got would be its own to keep.
    offline.disconnect(DisconnectOptions::default()).await.unwrap();

    let told = Arc::new(Mutex::new(Told::default()));
    let (progress, mut acknowledged) = watch::channel(0);
    let publishing = tokio::spawn(publish_all(publisher, Arc::clone(&told), progress));
    for (round, shards) in ["1", "3", "2", "2"].into_iter().enumerate() {
        let enough = (round + 1) * MESSAGES as usize / 6 + round * 7;
        acknowledged.wait_for(|count| *count >= enough).await.unwrap();
        broker.kill();
        broker = Process::start(place.path(), &url, shards);
    }
    publishing.await.unwrap();
    assert_eq!(told.lock().acknowledged.len(), MESSAGES as usize);

    check("the one that was connected", &mut of_online).await;
    let offline = Client::connect(options(&url, "offline")).await.unwrap();
    assert!(offline.connack().unwrap().session_present);
    check("the one that was away", &mut subscribe(&offline, "load/#").await).await;
    let kept = told.lock().kept.clone();
    check_retained(&url, &kept).await;
}

/// Everything has come, and QoS 2 once.
async fn check(who: &str, subscription: &mut Subscription) {
    let mut counts = BTreeMap::<u32, usize>::new();
    while counts.len() < MESSAGES as usize {
        let message = tokio::time::timeout(Duration::from_mins(1), subscription.recv());
        let Ok(Some(message)) = message.await else {
            let missing: Vec<_> = (0..MESSAGES).filter(|number| !counts.contains_key(number)).take(20).collect();
            panic!("{who}: {} have come, and not {missing:?}", counts.len());
        };
        if message.retain() {
            continue;
        }
        let number = std::str::from_utf8(message.payload()).unwrap().parse().unwrap();
        *counts.entry(number).or_default() += 1;
    }
    let twice: Vec<_> = counts.iter().filter(|(number, count)| *number % 2 == 1 && **count > 1).collect();
    assert!(twice.is_empty(), "{who}: more than once {twice:?}");
}

async fn check_retained(url: &str, kept: &BTreeMap<String, u32>) {
    let client = Client::connect(ClientOptions::parse(url).unwrap()).await.unwrap();
    let mut retained = subscribe(&client, "load/kept/+").await;
    let mut found = BTreeMap::new();
    for _ in 0..kept.len() {
        let message = tokio::time::timeout(Duration::from_mins(1), retained.recv()).await.unwrap().unwrap();
        assert!(message.retain());
        found.insert(message.topic().to_owned(), std::str::from_utf8(message.payload()).unwrap().parse().unwrap());
    }
    assert_eq!(&found, kept);
}

#[test]
fn a_store_in_use_is_refused_and_free_once_the_broker_has_ended() {
    let place = tempfile::tempdir().unwrap();
    let listen: ListenerUrl = "tcp://127.0.0.1:0".parse().unwrap();
    let start = || Broker::builder().listen(listen.clone()).store(place.path(), Durability::Fsync).start();
    let broker = start().unwrap();
    let handle = broker.handle();
    let refused = start().unwrap_err();
    assert!(matches!(refused, StartError::Store(StoreError::Disk(_))), "{refused}");
    assert!(refused.to_string().contains("is in use by another process"), "{refused}");
    broker.shutdown();
    // A handle does not keep it.
    start().unwrap().shutdown();
    drop(handle);
}

/// Even ones with QoS 1, odd ones with QoS 2.
const MESSAGES: u32 = 6000;

/// Publications under way at one time.
const LANES: u32 = 64;

/// What is published before the broker has settled its store, and right before its end.
#[test]
fn what_is_published_at_the_last_moment_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    for number in 0..5 {
        let broker = Broker::builder().store(folder.path(), Durability::Fsync).start().unwrap();
        let topic = TopicName::new(&format!("t/{number}")).unwrap();
        broker.handle().publish(Message::new(topic, "kept".into()).retain(true)).unwrap();
        broker.shutdown();
    }
    let broker = Broker::builder().store(folder.path(), Durability::Fsync).start().unwrap();
    assert_eq!(broker.handle().retained("t/#", 100).len(), 5);
}
