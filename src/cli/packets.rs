//! The packets of a connection in the log, for `-d`: a transport that reads along.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::{
    client::{BoxStream, ClientTls, Connecting, Connector, ServerUrl, UrlConnector},
    codec::{Ack, Decoder, Limits, Packet, PacketId, Publish, Version},
    net::tls::TlsError,
};

/// Connects to servers, and logs what is said to them and by them.
#[derive(Debug)]
pub(super) struct Tap {
    inner: UrlConnector,
    version: Version,
}

impl Tap {
    pub(super) fn new(servers: Vec<ServerUrl>, tls: &ClientTls, version: Version) -> Result<Self, TlsError> {
        Ok(Self { inner: UrlConnector::new(servers, tls)?, version })
    }
}

impl Connector for Tap {
    fn targets(&self) -> usize {
        self.inner.targets()
    }

    fn name(&self, target: usize) -> String {
        self.inner.name(target)
    }

    fn connect(&self, target: usize) -> Connecting<'_> {
        Box::pin(async move {
            let stream = self.inner.connect(target).await?;
            let direction = |verb| Direction { verb, version: self.version, decoder: Some(Decoder::new()) };
            let tapped = Tapped { stream, sent: direction("sending"), received: direction("received") };
            Ok(Box::new(tapped) as BoxStream)
        })
    }
}

/// A transport with a reader of each direction.
struct Tapped {
    stream: BoxStream,
    sent: Direction,
    received: Direction,
}

/// What goes one way.
struct Direction {
    verb: &'static str,
    version: Version,
    /// None once something was no packet.
    decoder: Option<Decoder>,
}

impl Direction {
    fn follow(&mut self, bytes: &[u8]) {
        let Some(decoder) = &mut self.decoder else { return };
        decoder.feed(bytes);
        loop {
            match decoder.poll(self.version, &Limits { packet_bytes_max: u32::MAX, ..Limits::default() }) {
                Ok(Some(packet)) => tracing::debug!("{} {}", self.verb, describe(&packet)),
                Ok(None) => return,
                Err(error) => {
                    tracing::debug!(%error, "{} something that is no packet", self.verb);
                    self.decoder = None;
                    return;
                }
            }
        }
    }
}

impl AsyncRead for Tapped {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        self.received.follow(buf.filled().get(before..).unwrap_or_default());
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Tapped {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, buf))?;
        self.sent.follow(buf.get(..written).unwrap_or_default());
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// A packet in a line, much as mosquitto's tools have it. Passwords and payloads are not shown.
fn describe(packet: &Packet) -> String {
    let ack = |name: &str, ack: &Ack| format!("{name} (m{}, {})", ack.packet_id, ack.reason);
    let reasons = |name: &str, packet_id: PacketId, reasons: &[_]| {
        let reasons: Vec<_> = reasons.iter().map(ToString::to_string).collect();
        format!("{name} (m{packet_id}, {})", reasons.join(", "))
    };
    match packet {
        Packet::Connect(connect) => format!(
            "CONNECT ({}, clean {}, keep-alive {} s)",
            connect.client_id.as_str(),
            connect.clean_start,
            connect.keep_alive
        ),
        Packet::ConnAck(connack) => {
            format!("CONNACK ({}, session present {})", connack.reason, connack.session_present)
        }
        Packet::Publish(publish) => describe_publish(publish),
        Packet::PubAck(packet) => ack("PUBACK", packet),
        Packet::PubRec(packet) => ack("PUBREC", packet),
        Packet::PubRel(packet) => ack("PUBREL", packet),
        Packet::PubComp(packet) => ack("PUBCOMP", packet),
        Packet::Subscribe(subscribe) => {
            let parts = subscribe.subscriptions.iter();
            let parts: Vec<_> =
                parts.map(|part| format!("{:?} q{}", part.filter.as_str(), part.options.qos as u8)).collect();
            format!("SUBSCRIBE (m{}, {})", subscribe.packet_id, parts.join(", "))
        }
        Packet::SubAck(suback) => reasons("SUBACK", suback.packet_id, &suback.reasons),
        Packet::Unsubscribe(unsubscribe) => {
            let filters: Vec<_> = unsubscribe.filters.iter().map(|filter| format!("{:?}", filter.as_str())).collect();
            format!("UNSUBSCRIBE (m{}, {})", unsubscribe.packet_id, filters.join(", "))
        }
        Packet::UnsubAck(unsuback) => reasons("UNSUBACK", unsuback.packet_id, &unsuback.reasons),
        Packet::PingReq => "PINGREQ".to_owned(),
        Packet::PingResp => "PINGRESP".to_owned(),
        Packet::Disconnect(disconnect) => format!("DISCONNECT ({})", disconnect.reason),
        Packet::Auth(auth) => format!("AUTH ({})", auth.reason),
    }
}

fn describe_publish(publish: &Publish) -> String {
    let (dup, qos, retain) = (u8::from(publish.dup), publish.qos as u8, u8::from(publish.retain));
    let id = publish.packet_id.map_or(0, PacketId::get);
    let (topic, bytes) = (publish.topic.as_str(), publish.payload.len());
    format!("PUBLISH (d{dup}, q{qos}, r{retain}, m{id}, {topic:?}, {bytes} bytes)")
}
