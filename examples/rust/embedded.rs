//! A broker inside the program, and a client of it. `cargo run --example embedded`

use ferromq::{
    client::{Client, ClientOptions, MailboxOptions, PublishRequest, SubscribeRequest},
    codec::{QoS, Subscription, SubscriptionOptions, TopicFilter},
    config::ListenerUrl,
    server::Broker,
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url: ListenerUrl = "tcp://127.0.0.1:0".parse()?;
    let broker = Broker::builder().listen(url).start()?;
    let client = Client::connect(ClientOptions::parse(&broker.listeners()[0].to_string())?).await?;
    let subscriptions = vec![Subscription {
        filter: TopicFilter::new("plant/+/temp")?,
        options: SubscriptionOptions { qos: QoS::AtLeastOnce, ..Default::default() },
    }];
    let request = SubscribeRequest { subscriptions, identifier: None, user_properties: Vec::new() };
    let mut readings = client.subscribe(request, MailboxOptions::default()).await?;
    client.publish(PublishRequest::new("plant/7/temp", "21.5").qos(QoS::AtLeastOnce)).await?;
    println!("{:?}", readings.recv().await.map(|message| message.payload_bytes()));
    Ok(())
}
