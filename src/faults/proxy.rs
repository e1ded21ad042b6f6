//! Faults in front of any broker: listens, and connects each client to the broker behind.

use std::{io, net::SocketAddr, sync::Arc};

use tokio::{
    net::{TcpListener, TcpStream, UnixStream},
    task::JoinHandle,
};

use super::{Faults, Inner, UPSTREAM_TIMEOUT, pump::End};
use crate::client::{ClientTls, Secure, ServerUrl, connect_tcp};

/// A proxy in front of a broker. Dropping it ends it and its connections.
#[derive(Debug)]
pub struct Proxy {
    faults: Faults,
    address: SocketAddr,
    accepting: JoinHandle<()>,
}

impl Proxy {
    /// Listens at `host` and `port` (0 is any that is free) for connections to the broker at `upstream`. MQTT in
    /// WebSocket frames passes without being looked into. The broker may speak TLS, as `tls` says; its clients are not to.
    pub async fn start(
        faults: Faults,
        host: &str,
        port: u16,
        upstream: ServerUrl,
        tls: &ClientTls,
    ) -> io::Result<Self> {
        let secure = upstream.is_tls().then(|| tls.secure()).transpose().map_err(io::Error::other)?;
        let upstream = Upstream { url: upstream, secure };
        let listener = TcpListener::bind((host, port)).await?;
        let address = listener.local_addr()?;
        let inner = Arc::clone(&faults.0);
        let task = accept(Arc::clone(&inner), listener, upstream);
        let runtime = inner.runtime.clone();
        let accepting = runtime.spawn(inner.clock.watch(Some(runtime.clone()), task));
        Ok(Self { faults, address, accepting })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends it: when this is done, nobody listens any more and all connections are to be reset.
    pub async fn stop(mut self) {
        self.accepting.abort();
        // It was aborted, or has panicked; both are its end.
        let _ = (&mut self.accepting).await;
    }

    /// Its faults.
    pub fn faults(&self) -> &Faults {
        &self.faults
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.faults.drop_connections(None);
    }
}

async fn accept(inner: Arc<Inner>, listener: TcpListener, upstream: Upstream) {
    loop {
        match listener.accept().await {
            Ok((stream, address)) => {
                let _ = stream.set_nodelay(true); // fails only for a peer that is gone
                if inner.refuses() {
                    End::Tcp(stream).reset();
                    continue;
                }
                let (joining, upstream) = (Arc::clone(&inner), upstream.clone());
                let runtime = inner.runtime.clone();
                let join = async move { connect(&joining, stream, address, &upstream).await };
                runtime.spawn(inner.clock.watch(Some(runtime.clone()), join));
            }
            // Out of descriptors, most likely: those that end give some back.
            Err(error) => {
                tracing::warn!(%error, "a proxy could not accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn connect(inner: &Arc<Inner>, client: TcpStream, address: SocketAddr, upstream: &Upstream) {
    let connecting = tokio::time::timeout(UPSTREAM_TIMEOUT, open(upstream)).await;
    match connecting.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
        Ok(broker) => {
            let is_mqtt = !matches!(upstream.url, ServerUrl::WebSocket { .. });
            inner.join(Arc::from(address.to_string()), is_mqtt, End::Tcp(client), broker);
        }
        Err(error) => {
            tracing::warn!(%error, upstream = %upstream.url, "the broker behind a proxy cannot be reached");
            End::Tcp(client).reset();
        }
    }
}

async fn open(upstream: &Upstream) -> io::Result<End> {
    match &upstream.url {
        ServerUrl::Tcp { host, port, .. } | ServerUrl::WebSocket { host, port, .. } => {
            let stream = connect_tcp(host, *port).await?;
            Ok(match &upstream.secure {
                Some(secure) => End::Other(Box::new(secure.connect(stream, host).await?)),
                None => End::Tcp(stream),
            })
        }
        ServerUrl::Unix { path } => Ok(UnixStream::connect(path).await?.into()),
    }
}

/// The broker behind.
#[derive(Clone)]
struct Upstream {
    url: ServerUrl,
    secure: Option<Secure>,
}

/// Before accepting is tried again.
const ACCEPT_PAUSE: std::time::Duration = std::time::Duration::from_millis(100);
