//! rumqttc: whoever uses it polls its event loop, here in the same task for what comes in, beside another for what goes out.

use std::time::Duration;

use rumqttc::{AsyncClient, Event, EventLoop, MqttOptions, Outgoing, Packet, QoS, SubscribeFilter};

use crate::{END, Outcome, PAYLOAD, TOPIC, Task, WINDOW, cost::Cost, wait_for_word};

pub async fn receive(task: &Task) -> Outcome {
    let (client, mut events) = connected(task).await?;
    let filter = |topic: &str, qos| SubscribeFilter::new(topic.to_owned(), qos);
    client.subscribe_many([filter(TOPIC, qos(task)), filter(END, QoS::AtLeastOnce)]).await?;
    while !matches!(events.poll().await?, Event::Incoming(Packet::SubAck(_))) {}
    wait_for_word()?;
    let cost = Cost::begin();
    let (mut received, mut bytes) = (0, 0);
    loop {
        let Event::Incoming(Packet::Publish(message)) = events.poll().await? else { continue };
        if message.topic == END {
            break;
        }
        received += 1;
        bytes += message.payload.len();
    }
    cost.report(received);
    assert_eq!(bytes as u64, received * PAYLOAD.len() as u64);
    Ok(())
}

pub async fn publish(task: &Task) -> Outcome {
    let (client, mut events) = connected(task).await?;
    wait_for_word()?;
    let cost = Cost::begin();
    let (count, qos) = (task.count, qos(task));
    let publishing = tokio::spawn(async move {
        for _ in 0..count {
            client.publish(TOPIC, qos, false, PAYLOAD).await?;
        }
        client.publish(END, QoS::AtLeastOnce, false, PAYLOAD).await
    });
    let acknowledged = if task.qos == 0 { 1 } else { count + 1 };
    let (mut acks, mut sent) = (0, 0);
    while acks < acknowledged {
        match events.poll().await? {
            Event::Incoming(Packet::PubAck(_)) => acks += 1,
            Event::Outgoing(Outgoing::Publish(_)) => sent += 1,
            _ => {}
        }
    }
    cost.report(count);
    publishing.await??;
    assert_eq!(sent, count + 1);
    Ok(())
}

async fn connected(task: &Task) -> Result<(AsyncClient, EventLoop), rumqttc::ConnectionError> {
    let mut options = MqttOptions::new("bench", task.host.clone(), task.port);
    options.set_keep_alive(Duration::from_secs(60)).set_inflight(WINDOW.try_into().unwrap_or(u16::MAX));
    let (client, mut events) = AsyncClient::new(options, WINDOW);
    while !matches!(events.poll().await?, Event::Incoming(Packet::ConnAck(_))) {}
    Ok((client, events))
}

fn qos(task: &Task) -> QoS {
    if task.qos == 0 { QoS::AtMostOnce } else { QoS::AtLeastOnce }
}
