//! Prints what is published under a filter, across reconnects. `cargo run --example subscribe -- mqtt://localhost 'plant/#'`

use std::{env, error::Error};

use ferromq::{
    client::{Client, ClientOptions, MailboxOptions, SubscribeRequest},
    codec::{Limits, QoS, SubscriptionOptions, Text, TopicFilter},
};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [url, filter] = arguments.as_slice() else {
        return Err("usage: subscribe URL FILTER".into());
    };
    let filter = TopicFilter::parse(Text::try_from(filter.as_str())?, &Limits::default())?;
    let options = SubscriptionOptions { qos: QoS::AtLeastOnce, ..SubscriptionOptions::default() };
    let client = Client::connect(ClientOptions::parse(url)?).await?;
    let request = SubscribeRequest::new(filter, options);
    let mut subscription = client.subscribe(request, MailboxOptions::default()).await?;
    while let Some(message) = subscription.recv().await {
        println!("{} {}", message.topic(), String::from_utf8_lossy(message.payload()));
    }
    // The stream ends only for a reason that coming back would not mend.
    Err(subscription.failure().map_or_else(|| "the client ended".into(), Into::into))
}
