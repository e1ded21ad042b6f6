//! FerroMQ.

use std::collections::VecDeque;

use ferromq::{
    client::{
        Client, ClientOptions, Error, MailboxOptions, Outgoing, Payload, PublishRequest, PublishTicket, RequestError,
        ServerUrl, SubscribeRequest,
    },
    codec::{
        Limits, Properties, QoS, Subscription, SubscriptionOptions, Text, TopicFilter, Version, topic::InvalidTopic,
    },
};

use crate::{END, Outcome, PAYLOAD, TOPIC, Task, WINDOW, cost::Cost, wait_for_word};

pub async fn receive(task: &Task) -> Outcome {
    let client = connected(task).await?;
    let subscription = |filter, qos| {
        let filter = TopicFilter::parse(Text::from_static(filter), &Limits::default())?;
        let options = SubscriptionOptions { qos, ..SubscriptionOptions::default() };
        Ok::<_, InvalidTopic>(Subscription { filter, options })
    };
    let subscriptions = vec![subscription(TOPIC, qos(task))?, subscription(END, QoS::AtLeastOnce)?];
    let request = SubscribeRequest { subscriptions, identifier: None, user_properties: Vec::new() };
    let mut subscription = client.subscribe(request, MailboxOptions::default()).await?;
    wait_for_word()?;
    let cost = Cost::begin();
    let (mut received, mut bytes) = (0, 0);
    loop {
        let message = subscription.recv().await.ok_or("the connection was lost")?;
        if message.topic() == END {
            break;
        }
        received += 1;
        bytes += message.payload().len();
    }
    cost.report(received);
    assert_eq!(bytes as u64, received * PAYLOAD.len() as u64);
    Ok(())
}

pub async fn publish(task: &Task) -> Outcome {
    let client = connected(task).await?;
    wait_for_word()?;
    let cost = Cost::begin();
    let mut under_way: VecDeque<PublishTicket> = VecDeque::with_capacity(WINDOW);
    for _ in 0..task.count {
        if task.qos == 0 {
            client.publish(request(QoS::AtMostOnce)).await?;
            continue;
        }
        if under_way.len() == WINDOW
            && let Some(oldest) = under_way.pop_front()
        {
            oldest.await?;
        }
        let submitted = submitted(&client, qos(task), &mut under_way).await?;
        under_way.extend(submitted);
    }
    for ticket in under_way {
        ticket.await?;
    }
    // The server has taken all that came before.
    client.publish(request(QoS::AtLeastOnce)).await?;
    cost.report(task.count);
    Ok(())
}

/// Publishes, after the oldest one under way if there is no room.
async fn submitted(
    client: &Client,
    qos: QoS,
    under_way: &mut VecDeque<PublishTicket>,
) -> Result<Option<PublishTicket>, Error> {
    const NONE: &Properties = &Properties::new();
    let message = Outgoing { topic: TOPIC, payload: Payload::Borrowed(PAYLOAD), qos, retain: false, properties: NONE };
    loop {
        match (client.try_publish(&message), under_way.pop_front()) {
            (Err(Error::Request(RequestError::QueueFull { .. })), Some(oldest)) => drop(oldest.await?),
            (result, oldest) => {
                if let Some(oldest) = oldest {
                    under_way.push_front(oldest);
                }
                return result;
            }
        }
    }
}

fn request(qos: QoS) -> PublishRequest {
    let topic = if qos == QoS::AtMostOnce { TOPIC } else { END };
    PublishRequest {
        topic: topic.to_owned(),
        payload: PAYLOAD.into(),
        qos,
        retain: false,
        properties: Properties::new(),
    }
}

async fn connected(task: &Task) -> Result<Client, Error> {
    let server = ServerUrl::Tcp { host: task.host.clone(), port: task.port, tls: false };
    Client::connect(ClientOptions::new(server).version(Version::V3_1_1)).await
}

fn qos(task: &Task) -> QoS {
    if task.qos == 0 { QoS::AtMostOnce } else { QoS::AtLeastOnce }
}
