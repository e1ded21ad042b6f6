//! Publishes one message and waits for the broker's acknowledgement.
//! `cargo run --example publish -- mqtt://localhost plant/1/temp 21.5`

use std::{env, error::Error};

use ferromq::{
    client::{Client, ClientOptions, DisconnectOptions, PublishRequest},
    codec::QoS,
};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [url, topic, payload] = arguments.as_slice() else {
        return Err("usage: publish URL TOPIC PAYLOAD".into());
    };
    let client = Client::connect(ClientOptions::parse(url)?).await?;
    let request = PublishRequest::new(topic, payload.clone()).qos(QoS::AtLeastOnce);
    let ack = client.publish(request).await?;
    println!("acknowledged: {}", ack.reason);
    client.disconnect(DisconnectOptions::default()).await?;
    Ok(())
}
