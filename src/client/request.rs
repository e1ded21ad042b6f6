//! Request and response (MQTT 5): a response topic of this client's own, and correlation data that tells answers apart.
//!
//! All requests of a client share one response subscription, made with the first. Answers are sorted on the client's
//! task as they come in; there is no task or queue in between.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Weak, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::{
    Client, Error, MailboxOptions, Message, Overflow, PublishRequest, Subscription, dispatch::MailboxId,
    mailbox::Mailbox, state::Inner,
};
use crate::{
    clock,
    codec::{Limits, Property, QoS, Subscription as FilterAndOptions, SubscriptionOptions, Text, TopicFilter},
    session::client::{RequestError, SubscribeRequest},
};

/// The answers a client waits for.
#[derive(Debug)]
pub(super) struct Responses {
    topic: Text,
    mailbox: Arc<Mailbox>,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    next: u64,
    senders: HashMap<u64, oneshot::Sender<Message>>,
}

/// A request that came in with [`Server`].
#[derive(Debug)]
pub struct IncomingRequest {
    client: Client,
    /// The request.
    pub message: Message,
    response_topic: Option<Text>,
    correlation: Option<Bytes>,
}

/// Requests to the topics of a filter, from [`Client::serve`].
#[derive(Debug)]
pub struct Server {
    client: Client,
    subscription: Subscription,
}

impl Client {
    /// Sends a request and waits for its answer (MQTT 5).
    pub async fn request(&self, request: PublishRequest, timeout: Duration) -> Result<Message, Error> {
        let doing = || format!("the response to a request to {:?}", request.topic);
        match clock::timeout(&self.inner().options.clock, timeout, self.ask(&request)).await {
            Some(answer) => answer,
            None => Err(Error::Timeout { doing: doing(), after: timeout }),
        }
    }

    /// Takes requests to the topics of a filter.
    pub async fn serve(&self, filter: TopicFilter, options: MailboxOptions) -> Result<Server, Error> {
        let options_qos1 = SubscriptionOptions { qos: QoS::AtLeastOnce, ..SubscriptionOptions::default() };
        let subscription = self.subscribe(SubscribeRequest::new(filter, options_qos1), options).await?;
        Ok(Server { client: self.clone(), subscription })
    }

    async fn ask(&self, request: &PublishRequest) -> Result<Message, Error> {
        let responses = self.responses().await?;
        let (sender, receiver) = oneshot::channel();
        let number = responses.expect(sender);
        let _guard = Guard::new(self.inner(), &responses, number);
        let mut request = request.clone();
        request.properties.push(Property::ResponseTopic(responses.topic.clone()));
        let correlation = Bytes::copy_from_slice(&number.to_be_bytes());
        request.properties.push(Property::CorrelationData(correlation));
        self.publish(request).await?;
        receiver.await.map_err(|_| self.inner().state.lock().check_alive().err().unwrap_or(Error::Closed))
    }

    /// The shared response subscription; the first request makes it.
    async fn responses(&self) -> Result<Arc<Responses>, Error> {
        let inner = self.inner();
        let mut place = inner.responses.lock().await;
        if let Some(responses) = place.as_ref().filter(|responses| !responses.mailbox.is_closed()) {
            return Ok(Arc::clone(responses));
        }
        let responses = Responses::subscribe(self).await?;
        *place = Some(Arc::clone(&responses));
        Ok(responses)
    }
}

impl Responses {
    async fn subscribe(client: &Client) -> Result<Arc<Self>, Error> {
        let inner = client.inner();
        if !inner.options.session.version.is_v5() {
            return Err(RequestError::NeedsVersion5("request and response").into());
        }
        // The topic depends on what CONNACK says.
        client.ready().await?;
        let topic = client.response_topic()?;
        let filter = TopicFilter::parse(topic.clone(), &Limits::default())
            .map_err(|source| Error::Topic { topic: topic.to_string(), source })?;
        // Answers are sorted out at once: the mailbox never holds more than one read brings.
        let mailbox = Mailbox::new(MailboxOptions { overflow: Overflow::DropOldest, ..MailboxOptions::default() });
        let options = SubscriptionOptions { qos: QoS::AtLeastOnce, ..SubscriptionOptions::default() };
        let request = SubscribeRequest::from(FilterAndOptions { filter: filter.clone(), options });
        let asked = inner.with(|state| {
            state.check_alive()?;
            let (token, reply) = state.expect_reply();
            state.session.subscribe(request, token)?;
            Ok::<_, Error>((state.dispatch.add(Arc::clone(&mailbox), std::slice::from_ref(&filter)), reply))
        });
        let (id, reply) = asked?;
        let mut place = Place { inner, id: Some(id) };
        let answer = inner.reply(reply, || format!("subscribing to the response topic {topic:?}")).await?;
        if let Some(reason) = answer.reasons.iter().copied().find(|reason| reason.is_error()) {
            let what = format!("the subscription to the response topic {topic:?}");
            let properties = answer.properties;
            return Err(Error::Refused { packet: crate::codec::PacketType::Subscribe, what, reason, properties });
        }
        place.id = None;
        let responses = Arc::new(Self { topic, mailbox, waiting: Mutex::default() });
        let sorter: Weak<Self> = Arc::downgrade(&responses);
        responses.mailbox.set_hook(Some(Arc::new(move || {
            if let Some(responses) = sorter.upgrade() {
                responses.sort();
            }
        })));
        Ok(responses)
    }

    fn expect(&self, sender: oneshot::Sender<Message>) -> u64 {
        let mut waiting = self.waiting.lock();
        waiting.next += 1;
        let number = waiting.next;
        waiting.senders.insert(number, sender);
        number
    }

    /// Gives each answer to who waits for it; late and foreign ones go.
    fn sort(&self) {
        let mut messages = VecDeque::new();
        self.mailbox.swap(&mut messages);
        let mut waiting = self.waiting.lock();
        for message in messages {
            let properties = message.properties();
            let number = properties.correlation_data().and_then(|data| data.as_ref().try_into().ok());
            let sender = number.and_then(|number| waiting.senders.remove(&u64::from_be_bytes(number)));
            if let Some(sender) = sender {
                // The caller may have given up this moment.
                let _ = sender.send(message);
            }
        }
        if self.mailbox.is_closed() {
            waiting.senders.clear();
        }
    }
}

/// The place of a response mailbox that is not granted yet: given up when the request is refused or not waited for.
struct Place<'a> {
    inner: &'a Inner,
    id: Option<MailboxId>,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if let Some(id) = self.id.take() {
            self.inner.with(|state| state.dispatch.remove(id));
        }
    }
}

/// Forgets a request whose caller does not wait any more.
struct Guard<'a> {
    inner: &'a Inner,
    responses: &'a Responses,
    number: u64,
}

impl<'a> Guard<'a> {
    fn new(inner: &'a Inner, responses: &'a Responses, number: u64) -> Self {
        inner.requests_open.fetch_add(1, Ordering::Relaxed);
        Self { inner, responses, number }
    }
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        self.inner.requests_open.fetch_sub(1, Ordering::Relaxed);
        self.responses.waiting.lock().senders.remove(&self.number);
    }
}

impl Server {
    /// The next request, or `None` when the subscription or the client has ended.
    pub async fn next(&mut self) -> Option<IncomingRequest> {
        let message = self.subscription.recv().await?;
        let properties = message.properties();
        let response_topic = properties.response_topic().cloned();
        let correlation = properties.correlation_data().cloned();
        Some(IncomingRequest { client: self.client.clone(), message, response_topic, correlation })
    }

    /// The subscription the requests come in by.
    pub fn subscription(&self) -> &Subscription {
        &self.subscription
    }
}

impl IncomingRequest {
    /// Answers, with the request's QoS. A request that names no response topic cannot be answered.
    pub async fn respond(&self, payload: impl Into<Bytes>) -> Result<(), Error> {
        let Some(topic) = &self.response_topic else {
            return Err(RequestError::NotAllowed("the request names no response topic").into());
        };
        let mut response = PublishRequest::new(topic.as_str(), payload).qos(self.message.qos());
        if let Some(correlation) = self.correlation.clone() {
            response.properties.push(Property::CorrelationData(correlation));
        }
        self.client.publish(response).await.map(drop)
    }

    /// Where the answer goes.
    pub fn response_topic(&self) -> Option<&str> {
        self.response_topic.as_deref()
    }
}
