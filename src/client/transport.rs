//! How a transport comes to be: look-up, TCP, TLS, Unix sockets, WebSocket, or whatever the caller brings.

use std::{any::Any, fmt, future::Future, io, pin::Pin, sync::Mutex};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, lookup_host},
};

use super::{ClientTls, ServerUrl, tls::Secure, websocket::WebSocket};
use crate::net::tls::TlsError;

/// A connected transport.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin + Any {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Stream for T {}

/// Any transport.
pub type BoxStream = Box<dyn Stream>;

/// What [`Connector::connect`] returns.
pub type Connecting<'a> = Pin<Box<dyn Future<Output = io::Result<BoxStream>> + Send + 'a>>;

/// Makes transports, one for each attempt to connect.
pub trait Connector: Send + Sync + fmt::Debug + 'static {
    /// How many targets there are to try in turn.
    fn targets(&self) -> usize {
        1
    }

    /// Address of a target, for events and errors.
    fn name(&self, target: usize) -> String;

    /// Makes a transport to a target.
    fn connect(&self, target: usize) -> Connecting<'_>;

    /// Whether its transports are sockets, or a pipe within the process. Only a clock that is advanced needs to know.
    fn has_sockets(&self) -> bool {
        true
    }
}

/// Connects to addresses.
#[derive(Debug)]
pub(crate) struct UrlConnector {
    servers: Vec<ServerUrl>,
    /// There if one of them needs it.
    secure: Option<Secure>,
}

impl UrlConnector {
    /// Reads certificates if a server needs them.
    pub(crate) fn new(servers: Vec<ServerUrl>, tls: &ClientTls) -> Result<Self, TlsError> {
        let secure = tls.for_servers(&servers)?;
        Ok(Self { servers, secure })
    }
}

impl Connector for UrlConnector {
    fn targets(&self) -> usize {
        self.servers.len()
    }

    fn name(&self, target: usize) -> String {
        self.servers.get(target).map(ServerUrl::to_string).unwrap_or_default()
    }

    fn connect(&self, target: usize) -> Connecting<'_> {
        Box::pin(async move {
            match self.servers.get(target) {
                Some(url) => connect(url, self.secure.as_ref()).await,
                None => Err(io::Error::new(io::ErrorKind::NotFound, "no server is named in the options")),
            }
        })
    }
}

/// One transport that is there already; it cannot be made a second time.
pub(super) struct Given(Mutex<Option<BoxStream>>);

impl Given {
    pub(super) fn new(stream: impl Stream) -> Self {
        Self(Mutex::new(Some(Box::new(stream))))
    }
}

impl Connector for Given {
    fn name(&self, _: usize) -> String {
        "the given stream".to_owned()
    }

    fn connect(&self, _: usize) -> Connecting<'_> {
        let stream = self.0.lock().ok().and_then(|mut stream| stream.take());
        Box::pin(async {
            stream.ok_or_else(|| {
                io::Error::new(io::ErrorKind::Unsupported, "the stream was used up: it cannot be reopened")
            })
        })
    }
}

impl fmt::Debug for Given {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Given")
    }
}

async fn connect(url: &ServerUrl, secure: Option<&Secure>) -> io::Result<BoxStream> {
    match url {
        ServerUrl::Tcp { host, port, tls } => connect_to(host, *port, secure.filter(|_| *tls)).await,
        #[cfg(unix)]
        ServerUrl::Unix { path } => Ok(Box::new(tokio::net::UnixStream::connect(path).await?)),
        #[cfg(not(unix))]
        ServerUrl::Unix { .. } => {
            Err(io::Error::new(io::ErrorKind::Unsupported, "Unix sockets do not exist on this system"))
        }
        ServerUrl::WebSocket { host, port, path, tls } => {
            let stream = connect_to(host, *port, secure.filter(|_| *tls)).await?;
            Ok(Box::new(WebSocket::connect(stream, &url.authority(), path).await?))
        }
    }
}

/// Connects to `host`, with TLS if there is something to do it with.
async fn connect_to(host: &str, port: u16, secure: Option<&Secure>) -> io::Result<BoxStream> {
    let stream = connect_tcp(host, port).await?;
    Ok(match secure {
        Some(secure) => Box::new(secure.connect(stream, host).await?),
        None => Box::new(stream),
    })
}

/// Connects to the first address of `host` that answers.
pub(crate) async fn connect_tcp(host: &str, port: u16) -> io::Result<TcpStream> {
    let mut failure = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in lookup_host((host, port)).await? {
        match TcpStream::connect(address).await {
            Ok(stream) => {
                // Small packets must not wait for the acknowledgement of the last ones.
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Err(error) => failure = io::Error::new(error.kind(), format!("{address}: {error}")),
        }
    }
    Err(failure)
}
