//! Request and response between two clients of a broker inside the process. `cargo run --example request`

use std::{error::Error, time::Duration};

use ferromq::{
    client::{Client, ClientOptions, MailboxOptions, PublishRequest},
    codec::{Limits, Text, TopicFilter},
    net::listener::ListenerUrl,
    server::Broker,
};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let broker = Broker::builder().listen("tcp://127.0.0.1:0".parse::<ListenerUrl>()?).start()?;
    let url = broker.listeners()[0].to_string();
    let answering = Client::connect(ClientOptions::parse(&url)?).await?;
    let filter = TopicFilter::parse(Text::from_static("text/upper"), &Limits::default())?;
    let mut server = answering.serve(filter, MailboxOptions::default()).await?;
    tokio::spawn(async move {
        while let Some(request) = server.next().await {
            let answer = request.message.payload().to_ascii_uppercase();
            if let Err(error) = request.respond(answer).await {
                eprintln!("{error}");
            }
        }
    });
    let asking = Client::connect(ClientOptions::parse(&url)?).await?;
    let answer = asking.request(PublishRequest::new("text/upper", "hello"), Duration::from_secs(5)).await?;
    println!("{}", String::from_utf8_lossy(answer.payload()));
    Ok(())
}
