//! Where the broker is that `ferromq bench` loads: by host and port, or by a URL as the other commands take it. The load
//! speaks MQTT over TCP and nothing else, so that its own cost stays small beside that of the broker.

use clap::Args;

use super::{
    Failure,
    connection::{bracketed, version},
};
use crate::codec::Version;

/// Where the broker is.
#[derive(Debug, Args)]
pub(super) struct Target {
    /// Host of the broker.
    #[arg(short = 'h', long, default_value = "127.0.0.1", conflicts_with = "url")]
    host: String,
    /// Port of the broker.
    #[arg(short, long, default_value_t = PORT, conflicts_with = "url")]
    port: u16,
    /// Both in one: mqtt://host[:port].
    #[arg(short = 'L', long, value_name = "URL")]
    url: Option<String>,
    /// Protocol version: 3.1, 3.1.1 or 5.
    #[arg(short = 'V', long = "protocol-version", default_value = "5", value_parser = version)]
    pub(super) version: Version,
}

/// What a target says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Server {
    /// `host:port`.
    pub(super) address: String,
    /// User name and password of the URL.
    pub(super) user: Option<(String, Option<String>)>,
}

impl Target {
    pub(super) fn server(&self) -> Result<Server, Failure> {
        match &self.url {
            Some(url) => parse(url),
            None => Ok(Server { address: format!("{}:{}", bracketed(&self.host)?, self.port), user: None }),
        }
    }

    /// The address alone, for loads whose clients have no names.
    pub(super) fn address(&self) -> Result<String, Failure> {
        match self.server()? {
            Server { address, user: None } => Ok(address),
            Server { .. } => Err(Failure::usage("-L: this load has no user name: leave it out of the URL")),
        }
    }
}

fn parse(url: &str) -> Result<Server, Failure> {
    let fault = |what: &str| Failure::usage(format!("-L {url}: {what}; write mqtt://host:port"));
    let rest = match url.split_once("://") {
        Some(("mqtt" | "tcp", rest)) => rest,
        Some((scheme, _)) => return Err(fault(&format!("bench speaks MQTT over TCP alone, not {scheme}"))),
        None => url,
    };
    let (user, rest) = rest.rsplit_once('@').map_or((None, rest), |(user, rest)| (Some(user), rest));
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    if rest.contains('/') {
        return Err(fault("bench makes topics of its own"));
    }
    let (host, port) = match rest.rsplit_once(':') {
        // The colons of an IPv6 address stand in brackets.
        Some((host, port)) if !port.ends_with(']') => {
            (host, port.parse().map_err(|_| fault("the port is no number up to 65535"))?)
        }
        _ => (rest, PORT),
    };
    if host.is_empty() {
        return Err(fault("the host is missing"));
    }
    let user = user.map(|user| match user.split_once(':') {
        Some((name, password)) => (name.to_owned(), Some(password.to_owned())),
        None => (user.to_owned(), None),
    });
    Ok(Server { address: format!("{}:{port}", bracketed(host)?), user })
}

/// Port of MQTT without TLS.
const PORT: u16 = 1883;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_host_port_and_user() {
        let server = |address: &str, user: Option<(&str, Option<&str>)>| Server {
            address: address.to_owned(),
            user: user.map(|(name, password)| (name.to_owned(), password.map(str::to_owned))),
        };
        for (url, expected) in [
            ("mqtt://broker", server("broker:1883", None)),
            ("tcp://broker:99/", server("broker:99", None)),
            ("broker:99", server("broker:99", None)),
            ("mqtt://[::1]", server("[::1]:1883", None)),
            ("mqtt://me@[::1]:99", server("[::1]:99", Some(("me", None)))),
            ("mqtt://me:p@ss:w@broker", server("broker:1883", Some(("me", Some("p@ss:w"))))),
        ] {
            assert_eq!(parse(url).unwrap_or_else(|fault| panic!("{url}: {fault:?}")), expected);
        }
    }

    #[test]
    fn what_bench_cannot_load_is_refused() {
        for (url, fault) in [
            ("mqtts://broker", "MQTT over TCP alone, not mqtts"),
            ("mqtt://broker/topic", "topics of its own"),
            ("mqtt://broker:99999", "no number up to 65535"),
            ("mqtt://", "the host is missing"),
            ("mqtt://me@:1", "the host is missing"),
        ] {
            let found = format!("{:?}", parse(url).unwrap_err());
            assert!(found.contains(fault), "{url}: {found}");
        }
    }
}
