//! Recorded messages, published again: in their order, and with the time between them kept or scaled.

use std::{
    collections::{HashMap, VecDeque},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use arrow_array::RecordBatch;
use bytes::Bytes;

use super::{FileBatches, Filter, Messages, TelemetryError};
use crate::{
    client::{Client, PublishRequest},
    codec::{Properties, QoS},
};

/// What is replayed, and how.
#[derive(Debug, Clone)]
pub struct ReplayOptions {
    /// The files, in any order: the one whose first message is oldest comes first.
    pub files: Vec<PathBuf>,
    /// Which rows.
    pub filter: Option<Filter>,
    /// How many times as fast as it was. `None`: as fast as the server takes it.
    pub speed: Option<f64>,
    /// Quality of service of the publications. `None`: that they came with, or 0 if that was not recorded.
    pub qos: Option<QoS>,
    /// Whether to publish them as retained messages. `None`: those that were.
    pub retain: Option<bool>,
}

/// A replay that is under way.
#[derive(Debug)]
pub struct Replay {
    options: ReplayOptions,
    files: VecDeque<FileBatches>,
    rows: u64,
    batch: Option<Loaded>,
    /// New names of topics; `None`: left out.
    topics: HashMap<String, Option<String>>,
    /// When it began, and when the first message had come.
    begun: Option<(Instant, u64)>,
}

#[derive(Debug)]
struct Loaded {
    batch: RecordBatch,
    next: usize,
}

impl Replay {
    /// Opens the files.
    pub fn open(options: ReplayOptions) -> Result<Self, TelemetryError> {
        if options.speed.is_some_and(|speed| !(speed.is_finite() && speed > 0.0)) {
            return Err(TelemetryError::Settings("speed must be a number above 0".to_owned()));
        }
        let mut files = Vec::new();
        for path in &options.files {
            files.push((first_time(path)?, FileBatches::open(path)?));
        }
        files.sort_by_key(|(time, _)| *time);
        let rows = files.iter().map(|(_, file)| file.rows()).sum();
        let files = files.into_iter().map(|(_, file)| file).collect();
        Ok(Self { options, files, rows, batch: None, topics: HashMap::new(), begun: None })
    }

    /// Rows of all files, before `filter`.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Reads the next messages, unless there are some; whether there are any. `map` is asked once for each topic where
    /// its messages go to; `None` leaves them out.
    pub fn load<E: From<TelemetryError>>(
        &mut self,
        map: &mut impl FnMut(&str) -> Result<Option<String>, E>,
    ) -> Result<bool, E> {
        while self.batch.is_none() {
            let Some(file) = self.files.front_mut() else { return Ok(false) };
            let Some(batch) = file.next() else {
                self.files.pop_front();
                continue;
            };
            let batch = batch?;
            let batch = match &self.options.filter {
                Some(filter) => filter.apply(&batch)?,
                None => batch,
            };
            let messages = Messages::of(&batch)?;
            for row in 0..messages.len() {
                let topic = messages.topic(row);
                if !self.topics.contains_key(topic) {
                    self.topics.insert(topic.to_owned(), map(topic)?);
                }
            }
            self.batch = (batch.num_rows() > 0).then_some(Loaded { batch, next: 0 });
        }
        Ok(true)
    }

    /// Publishes what is due within `at_most`, of what is loaded, and waits for it; how many rows were dealt with.
    pub async fn step(&mut self, client: &Client, at_most: Duration) -> Result<usize, TelemetryError> {
        let Some(mut loaded) = self.batch.take() else { return Ok(0) };
        let end = Instant::now() + at_most;
        let mut done = 0;
        let result = loop {
            match self.publish_due(&mut loaded, client, end).await {
                Ok(0) => break Ok(done),
                Ok(count) => done += count,
                Err(error) => break Err(error),
            }
            if loaded.next >= loaded.batch.num_rows() || Instant::now() >= end {
                break Ok(done);
            }
        };
        if loaded.next < loaded.batch.num_rows() {
            self.batch = Some(loaded);
        }
        result
    }

    /// Waits for the next message, until `end` at most, and publishes those that are due; how many.
    async fn publish_due(
        &mut self,
        loaded: &mut Loaded,
        client: &Client,
        end: Instant,
    ) -> Result<usize, TelemetryError> {
        let messages = Messages::of(&loaded.batch)?;
        let first = loaded.next;
        let (begun, epoch) = *self.begun.get_or_insert_with(|| (Instant::now(), messages.received_at_us(first)));
        let due = |row: usize| {
            let since = Duration::from_micros(messages.received_at_us(row).saturating_sub(epoch));
            self.options.speed.map_or(begun, |speed| begun + since.div_f64(speed).min(WAIT_MAX))
        };
        if due(first) > Instant::now() {
            tokio::time::sleep_until(due(first).min(end).into()).await;
        }
        let now = Instant::now();
        let mut after = first;
        while after < messages.len() && after - first < CHUNK_MESSAGES && due(after) <= now {
            after += 1;
        }
        let has_properties = client.version().is_v5();
        let requests: Vec<PublishRequest> =
            (first..after).filter_map(|row| self.request(&messages, row, has_properties)).collect();
        client.publish_many(requests.iter().map(PublishRequest::as_outgoing)).await?;
        loaded.next = after;
        Ok(after - first)
    }

    fn request(&self, messages: &Messages<'_>, row: usize, has_properties: bool) -> Option<PublishRequest> {
        let topic = self.topics.get(messages.topic(row))?.clone()?;
        let payload = Bytes::copy_from_slice(&messages.payload(row));
        let qos = self.options.qos.or_else(|| messages.qos(row)).unwrap_or_default();
        let retain = self.options.retain.or_else(|| messages.retain(row)).unwrap_or_default();
        let properties = if has_properties { messages.properties(row) } else { Properties::new() };
        Some(PublishRequest { topic, payload, qos, retain, properties })
    }
}

/// When the first message of a file came.
fn first_time(path: &Path) -> Result<u64, TelemetryError> {
    let Some(batch) = FileBatches::open(path)?.next().transpose()? else { return Ok(u64::MAX) };
    let messages = Messages::of(&batch)?;
    Ok(if messages.is_empty() { u64::MAX } else { messages.received_at_us(0) })
}

/// Messages that are handed over together.
const CHUNK_MESSAGES: usize = 1024;

/// The longest wait for a message.
const WAIT_MAX: Duration = Duration::from_hours(24 * 365);
