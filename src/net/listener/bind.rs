//! Binding: one socket for each shard where the kernel can spread connections, else one socket.

use std::{
    fs, io,
    net::{IpAddr, SocketAddr, ToSocketAddrs},
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::{Path, PathBuf},
    sync::Arc,
    sync::atomic::AtomicUsize,
};

use mio::net::{TcpListener, UnixListener};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::{ListenerConfig, ListenerInfo, ListenerUrl};
use crate::net::tls::{Tls, TlsError, server_config};

/// A listener that listens.
#[derive(Debug)]
pub(crate) struct Bound {
    /// With the real address and port.
    pub(crate) url: ListenerUrl,
    pub(crate) info: Arc<ListenerInfo>,
    /// One for each shard, or a single one for the first shard, which then deals connections out.
    pub(crate) sockets: Vec<ListenSocket>,
    /// Removes a Unix socket's file when the listener is dropped.
    pub(crate) socket_file: Option<SocketFile>,
}

/// A socket that accepts.
#[derive(Debug)]
pub(crate) enum ListenSocket {
    /// TCP, for plain MQTT and WebSocket.
    Tcp(TcpListener),
    /// Unix stream.
    Unix(UnixListener),
}

/// Binds `config` for `shards` shards and listens.
pub(crate) fn bind(config: &ListenerConfig, shards: usize) -> Result<Bound, BindError> {
    let fault = |source| BindError::new(&config.url, source);
    // Before the port is taken: what is wrong with a file is wrong at every port.
    let tls = tls(config).map_err(|fault| BindError::Tls { url: config.url.clone(), fault: fault.into() })?;
    let (url, sockets, socket_file) = match &config.url {
        ListenerUrl::Tcp { host, port, .. } | ListenerUrl::Ws { host, port, .. } => {
            let address =
                resolve(host, *port).map_err(|source| BindError::Resolve { url: config.url.clone(), source })?;
            let (address, sockets) = bind_tcp(address, config, shards).map_err(fault)?;
            (config.url.at(address.ip(), address.port()), sockets, None)
        }
        ListenerUrl::Unix { path } => {
            let (socket, file) = bind_unix(path, config)?;
            (config.url.clone(), vec![socket], Some(file))
        }
    };
    let info = ListenerInfo {
        name: url.to_string().into(),
        ws_path: if let ListenerUrl::Ws { path, .. } = &url { Some(path.as_str().into()) } else { None },
        tls,
        max_connections: config.max_connections,
        connections: AtomicUsize::new(0),
    };
    Ok(Bound { url, info: Arc::new(info), sockets, socket_file })
}

/// What the connections of a TLS listener share.
fn tls(config: &ListenerConfig) -> Result<Option<Tls>, TlsError> {
    match (config.url.is_tls(), &config.tls) {
        (true, Some(tls)) => server_config(tls).map(|config| Some(Tls(config))),
        (true, None) => Err(TlsError::NoCertificate),
        (false, Some(_)) => Err(TlsError::NotTls),
        (false, None) => Ok(None),
    }
}

/// The file of a Unix socket, removed on drop if it is still the one that was bound.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let is_ours =
            fs::symlink_metadata(&self.path).is_ok_and(|found| found.dev() == self.device && found.ino() == self.inode);
        if is_ours && let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "the socket file could not be removed");
        }
    }
}

/// What can be said of ports, where there are some.
fn of_ports(url: &ListenerUrl) -> &'static str {
    if matches!(url, ListenerUrl::Unix { .. }) { "" } else { " (port 0 lets the system choose)" }
}

/// Why a listener could not be set up, and what to do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// Somebody listens there.
    #[error(
        "cannot listen on {url}: the address is in use; stop what listens there or choose another{}",
        of_ports(url)
    )]
    AddressInUse {
        /// The listener.
        url: ListenerUrl,
    },
    /// The process may not.
    #[error(
        "cannot listen on {url}: permission denied; ports below 1024 need privileges, a socket file a writable directory"
    )]
    PermissionDenied {
        /// The listener.
        url: ListenerUrl,
    },
    /// The address belongs to no interface.
    #[error("cannot listen on {url}: no interface of this machine has that address; 0.0.0.0 or [::] stand for all")]
    AddressNotAvailable {
        /// The listener.
        url: ListenerUrl,
    },
    /// The host name has no address.
    #[error("cannot listen on {url}: the host name has no address ({source})")]
    Resolve {
        /// The listener.
        url: ListenerUrl,
        /// What the resolver said.
        source: io::Error,
    },
    /// The path of a Unix socket is taken by another kind of file.
    #[error("cannot listen on {url}: the path exists and is not a socket; remove it or choose another")]
    NotASocket {
        /// The listener.
        url: ListenerUrl,
    },
    /// Its certificate or key is of no use.
    #[error("cannot listen on {url}: {fault}")]
    Tls {
        /// The listener.
        url: ListenerUrl,
        /// What is wrong with them.
        fault: Box<TlsError>,
    },
    /// Anything else.
    #[error("cannot listen on {url}: {source}")]
    Io {
        /// The listener.
        url: ListenerUrl,
        /// What the system said.
        source: io::Error,
    },
}

impl BindError {
    /// The listener that could not be set up.
    pub fn url(&self) -> &ListenerUrl {
        match self {
            Self::AddressInUse { url }
            | Self::PermissionDenied { url }
            | Self::AddressNotAvailable { url }
            | Self::Resolve { url, .. }
            | Self::NotASocket { url }
            | Self::Tls { url, .. }
            | Self::Io { url, .. } => url,
        }
    }

    fn new(url: &ListenerUrl, source: io::Error) -> Self {
        let url = url.clone();
        match source.kind() {
            io::ErrorKind::AddrInUse => Self::AddressInUse { url },
            io::ErrorKind::PermissionDenied => Self::PermissionDenied { url },
            io::ErrorKind::AddrNotAvailable => Self::AddressNotAvailable { url },
            _ => Self::Io { url, source },
        }
    }
}

/// The address to bind: of a name with several, the first of IPv4, because that is where clients that know only one
/// try.
fn resolve(host: &str, port: u16) -> io::Result<SocketAddr> {
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Ok(SocketAddr::new(ip, port));
    }
    let addresses: Vec<_> = (host, port).to_socket_addrs()?.collect();
    addresses
        .iter()
        .find(|address| address.is_ipv4())
        .or_else(|| addresses.first())
        .copied()
        .ok_or_else(|| io::Error::from(io::ErrorKind::AddrNotAvailable))
}

fn bind_tcp(
    address: SocketAddr,
    config: &ListenerConfig,
    shards: usize,
) -> io::Result<(SocketAddr, Vec<ListenSocket>)> {
    let spread = config.reuse_port.unwrap_or(SPREADS_CONNECTIONS) && shards > 1;
    if spread && address.port() != 0 {
        // Sockets with SO_REUSEPORT share a port with those of another broker of the same user, silently. One without
        // it finds out; the moment between the two binds is the operator's race with himself.
        open(address, false)?;
    }
    let first = open(address, spread)?;
    let address = first.local_addr()?.as_socket().ok_or_else(|| io::Error::other("a TCP socket has an IP address"))?;
    let mut sockets = vec![first];
    for _ in 1..if spread { shards } else { 1 } {
        sockets.push(open(address, spread)?);
    }
    // Nobody can connect before all of them are bound, so the kernel's choice never changes under a client.
    let sockets = sockets.into_iter().map(|socket| {
        socket.listen(i32::try_from(config.backlog).unwrap_or(i32::MAX))?;
        Ok(ListenSocket::Tcp(TcpListener::from_std(socket.into())))
    });
    Ok((address, sockets.collect::<io::Result<_>>()?))
}

/// A bound TCP socket.
fn open(address: SocketAddr, reuse_port: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    // A restart must not wait for the connections of the last run to leave TIME_WAIT.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        // [::] is every interface and both families; a given address is IPv6 whatever this says.
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    if reuse_port {
        socket.set_reuse_port(true)?;
    }
    // Connections inherit it, where that is so, and spare a system call each.
    socket.set_tcp_nodelay(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

fn bind_unix(path: &Path, config: &ListenerConfig) -> Result<(ListenSocket, SocketFile), BindError> {
    let fault = |source| BindError::new(&config.url, source);
    remove_stale(path, &config.url)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None).map_err(fault)?;
    socket.set_nonblocking(true).map_err(fault)?;
    socket.bind(&SockAddr::unix(path).map_err(fault)?).map_err(fault)?;
    let found = fs::symlink_metadata(path).map_err(fault)?;
    let file = SocketFile { path: path.to_owned(), device: found.dev(), inode: found.ino() };
    socket.listen(i32::try_from(config.backlog).unwrap_or(i32::MAX)).map_err(fault)?;
    Ok((ListenSocket::Unix(UnixListener::from_std(socket.into())), file))
}

/// Removes the socket file of a broker that was killed; one that somebody listens on is left alone.
fn remove_stale(path: &Path, url: &ListenerUrl) -> Result<(), BindError> {
    let url = || url.clone();
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(BindError::new(&url(), error)),
    };
    if !found.file_type().is_socket() {
        return Err(BindError::NotASocket { url: url() });
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Ok(_) => Err(BindError::AddressInUse { url: url() }),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(|error| BindError::new(&url(), error))
        }
        // A full backlog: somebody listens, and is busy.
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(BindError::AddressInUse { url: url() }),
        Err(error) => Err(BindError::new(&url(), error)),
    }
}

/// Whether SO_REUSEPORT spreads connections over the sockets; elsewhere the last one bound gets them all.
const SPREADS_CONNECTIONS: bool = cfg!(target_os = "linux");

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::*;

    fn config(url: &str) -> ListenerConfig {
        ListenerConfig::new(url.parse().unwrap())
    }

    #[test]
    fn all_shards_share_the_port_that_the_system_chose() {
        let bound = bind(&config("tcp://127.0.0.1:0"), 3).unwrap();
        let ports: Vec<_> = bound.sockets.iter().map(port).collect();
        assert_ne!(ports[0], 0);
        assert_eq!(ports, vec![ports[0]; if SPREADS_CONNECTIONS { 3 } else { 1 }]);
        assert_eq!(bound.url.port(), Some(ports[0]));
        TcpStream::connect(("127.0.0.1", ports[0])).unwrap();
    }

    fn port(socket: &ListenSocket) -> u16 {
        match socket {
            ListenSocket::Tcp(socket) => socket.local_addr().unwrap().port(),
            ListenSocket::Unix(_) => panic!("not a network socket"),
        }
    }

    #[test]
    fn a_second_broker_on_the_port_is_told_so_whatever_the_number_of_shards() {
        for (first, second) in [(1, 1), (1, 2), (2, 1), (2, 2)] {
            let bound = bind(&config("tcp://127.0.0.1:0"), first).unwrap();
            let error = bind(&config(&bound.url.to_string()), second).unwrap_err();
            assert!(matches!(error, BindError::AddressInUse { .. }), "{first} {second}: {error}");
        }
    }

    #[test]
    fn a_stale_socket_file_is_replaced_and_a_live_one_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("broker.sock");
        let config = config(&format!("unix://{}", path.display()));
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let bound = bind(&config, 2).unwrap();
        assert!(matches!(bind(&config, 1), Err(BindError::AddressInUse { .. })));
        drop(bound);
        assert!(!path.exists());
        fs::write(&path, "precious").unwrap();
        assert!(matches!(bind(&config, 1), Err(BindError::NotASocket { .. })));
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    }

    #[test]
    fn a_foreign_address_is_named() {
        let error = bind(&config("tcp://192.0.2.1:0"), 1).unwrap_err();
        assert!(matches!(error, BindError::AddressNotAvailable { .. }), "{error}");
        assert!(error.to_string().contains("tcp://192.0.2.1:0"));
    }
}
