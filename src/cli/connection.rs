//! What `pub`, `sub` and `rr` share: where to connect, as whom, with which properties. The letters are those that
//! users of mosquitto_pub and mosquitto_sub know.

use std::{
    ffi::OsString,
    hash::{BuildHasher, Hasher, RandomState},
    net::Ipv6Addr,
    path::PathBuf,
    str::FromStr,
    time::Duration,
};

use bytes::Bytes;
use clap::Args;

use super::{Failure, complain, exit_code, packets::Tap, tls::Tls};
use crate::{
    client::{
        Client, ClientEvent, ClientOptions, DisconnectOptions, EventSource, EventStream, MailboxOptions, Reconnect,
        ServerUrl,
    },
    codec::{Properties, Property, QoS, Text, TopicName, Version, Will},
    config::{LogFormat, LogLevel},
};

/// Options of a connection.
#[derive(Debug, Args)]
#[command(disable_help_flag = true, disable_version_flag = true)]
pub(super) struct Connection {
    /// Prints help.
    #[arg(long, action = clap::ArgAction::Help)]
    help: Option<bool>,
    /// Host of the broker.
    #[arg(short = 'h', long = "host", default_value = "localhost", allow_hyphen_values = true, conflicts_with = "url")]
    host: String,
    /// Port of the broker [default: 1883, with TLS 8883]
    #[arg(short = 'p', long = "port", conflicts_with = "url")]
    port: Option<u16>,
    /// Unix socket of the broker, instead of host and port.
    #[arg(long, value_name = "PATH", allow_hyphen_values = true, conflicts_with_all = ["url", "host", "port"])]
    unix: Option<PathBuf>,
    /// All in one: mqtt://[user[:password]@]host[:port]/topic, mqtts://, ws://host:port/path, wss://, unix:///path
    #[arg(short = 'L', long = "url", value_name = "URL", allow_hyphen_values = true)]
    url: Option<String>,
    #[command(flatten)]
    tls: Tls,
    /// Client identifier; the broker assigns one if it is left out.
    #[arg(short = 'i', long = "id", allow_hyphen_values = true)]
    id: Option<String>,
    /// Client identifier: this and the process id.
    #[arg(short = 'I', long = "id-prefix", conflicts_with = "id", allow_hyphen_values = true)]
    id_prefix: Option<String>,
    /// User name.
    #[arg(short = 'u', long = "username", allow_hyphen_values = true)]
    username: Option<String>,
    /// Password.
    #[arg(short = 'P', long = "pw", allow_hyphen_values = true)]
    password: Option<OsString>,
    /// Protocol version: 3.1, 3.1.1 or 5 (also mqttv31, mqttv311, mqttv5). mosquitto's tools take 3.1.1 by default.
    #[arg(short = 'V', long = "protocol-version", default_value = "5", value_parser = version)]
    pub(super) version: Version,
    /// Keep-alive, seconds.
    #[arg(short = 'k', long = "keepalive", default_value_t = 60)]
    keep_alive: u16,
    /// Keep the session: do not start clean.
    #[arg(short = 'c', long = "disable-clean-session")]
    pub(super) keep_session: bool,
    /// Session expiry interval, seconds (MQTT 5); "never", -1 or 4294967295 for a session that does not end.
    #[arg(short = 'x', long = "session-expiry-interval", value_parser = session_expiry, allow_hyphen_values = true)]
    session_expiry: Option<u32>,
    /// Topic of the will.
    #[arg(long, allow_hyphen_values = true)]
    will_topic: Option<String>,
    /// Payload of the will.
    #[arg(long, requires = "will_topic", allow_hyphen_values = true)]
    will_payload: Option<OsString>,
    /// QoS of the will.
    #[arg(long, requires = "will_topic", default_value = "0", value_parser = qos)]
    will_qos: QoS,
    /// Retain the will.
    #[arg(long, requires = "will_topic")]
    will_retain: bool,
    /// An MQTT 5 property of a packet: COMMAND NAME VALUE, for instance `publish content-type text/plain` or
    /// `connect user-property name value`; may be repeated. COMMAND is connect, will, publish, subscribe or disconnect.
    #[arg(short = 'D', long = "property", num_args = 3..=4, allow_negative_numbers = true, action = clap::ArgAction::Append, value_names = ["COMMAND", "NAME", "VALUE", "VALUE2"])]
    properties: Vec<String>,
    /// Tells what happens, and which packets come and go, on standard error.
    #[arg(short = 'd', long = "debug")]
    debug: bool,
    /// Print nothing about failures and lost connections; the exit code tells.
    #[arg(long)]
    pub(super) quiet: bool,
}

/// Packets that a property can be given for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Command {
    Connect,
    Publish,
    Subscribe,
    Will,
    Disconnect,
}

impl Connection {
    /// Connects; `reconnect` is about connections lost later. What a resumed session sends before it is subscribed to
    /// anew goes to the mailbox `unmatched`, if there is one.
    pub(super) async fn open(
        &self,
        unmatched: Option<MailboxOptions>,
        reconnect: Option<Reconnect>,
    ) -> Result<Client, Failure> {
        if self.debug {
            super::log::start(LogLevel::Debug, LogFormat::Text);
        }
        let events = EventSource::new(EVENTS_MAX);
        tokio::spawn(tell_events(events.stream(), self.quiet));
        let options = ClientOptions { unmatched, reconnect, events: Some(events), ..self.options()? };
        let client = if self.debug {
            let tap = Tap::new(options.servers.clone(), &options.tls, self.version);
            let tap = tap.map_err(|fault| Failure::usage(fault.to_string()))?;
            Client::start_with(options, tap)?
        } else {
            Client::start(options)?
        };
        let ready = client.ready().await;
        ready.map_err(|error| Failure::new(error.to_string(), exit_code(&error, self.version)))?;
        Ok(client)
    }

    /// Finds what is wrong with the arguments before anything is waited for.
    pub(super) fn check(&self) -> Result<(), Failure> {
        self.disconnection()?;
        self.options().map(drop)
    }

    /// Whether the server is to keep the session beyond the connection.
    pub(super) fn keeps_session(&self) -> Result<bool, Failure> {
        let session = self.options()?.session;
        Ok(!session.clean_start || (self.version.is_v5() && session.session_expiry > 0))
    }

    /// How to disconnect.
    pub(super) fn disconnection(&self) -> Result<DisconnectOptions, Failure> {
        let mut options = DisconnectOptions::default();
        for property in &self.properties(Command::Disconnect)? {
            if let Property::SessionExpiryInterval(seconds) = property {
                options.session_expiry = Some(*seconds);
            }
        }
        Ok(options)
    }

    /// Says something on standard error, unless it is to be quiet.
    pub(super) fn warn(&self, message: &str) {
        if !self.quiet {
            complain(message);
        }
    }

    /// The topic to publish to: the one of `-t`, or the one in the URL.
    pub(super) fn topic(&self, named: Option<&str>) -> Result<String, Failure> {
        let (option, topic) = match (named, self.url_topic()?) {
            (Some(topic), _) => ("-t", topic.to_owned()),
            (None, Some(topic)) => ("-L", topic),
            (None, None) => return Err(Failure::usage("no topic: name one with -t")),
        };
        TopicName::new(&topic).map_err(|error| Failure::usage(format!("{option} {topic}: {error}")))?;
        Ok(topic)
    }

    /// The topic that `-L` names behind the host. A URL that cannot be connected to is refused for that.
    pub(super) fn url_topic(&self) -> Result<Option<String>, Failure> {
        let Some(url) = self.url.as_deref() else { return Ok(None) };
        self.server()?;
        let topic =
            url.split_once("://").filter(|(scheme, _)| has_topic(scheme)).and_then(|(_, rest)| rest.split_once('/'));
        let topic = topic.map(|(_, topic)| topic.to_owned());
        Ok(topic.filter(|topic| !topic.is_empty()))
    }

    /// The properties given for a packet.
    pub(super) fn properties(&self, command: Command) -> Result<Properties, Failure> {
        let mut properties = Properties::new();
        let mut given = &self.properties[..];
        while let [to, name, rest @ ..] = given {
            // All have one value but a user property, which is a pair.
            let (values, rest) = rest.split_at_checked(1 + usize::from(name == USER_PROPERTY)).unwrap_or((rest, &[]));
            let to = Command::from_str(to)?;
            let property = property(to, name, values)?;
            if to == command {
                properties.push(property);
            }
            given = rest;
        }
        if !properties.is_empty() && !self.version.is_v5() {
            return Err(Failure::usage("properties (-D) need MQTT 5: leave out -V or say -V 5"));
        }
        Ok(properties)
    }

    fn options(&self) -> Result<ClientOptions, Failure> {
        let (server, url_user) = self.server()?;
        let mut options = ClientOptions::new(server);
        let session = &mut options.session;
        session.version = self.version;
        session.keep_alive = self.keep_alive;
        session.clean_start = !self.keep_session;
        session.session_expiry = match self.session_expiry {
            Some(seconds) => seconds,
            None if self.keep_session => u32::MAX,
            None => 0,
        };
        session.client_id = self.client_id()?;
        let (url_name, url_password) = url_user.unwrap_or_default();
        session.username = match (&self.username, &url_name) {
            (Some(name), _) => Some(text("-u", name)?),
            (None, Some(name)) => Some(text("-L", name)?),
            (None, None) => None,
        };
        let password = self.password.clone().or(url_password.map(OsString::from));
        session.password = password.map(|password| Bytes::from(password.into_encoded_bytes()));
        session.will = self.will()?;
        self.connect_properties(&mut options)?;
        options.connect_timeout = CONNECT_TIMEOUT;
        options.tls = self.tls.options();
        Ok(options)
    }

    fn client_id(&self) -> Result<Text, Failure> {
        match (&self.id, &self.id_prefix) {
            (Some(id), _) => text("-i", id),
            (None, Some(prefix)) => text("-I", &format!("{prefix}{}", std::process::id())),
            (None, None) if self.keep_session => Err(Failure::usage("-c keeps a session: name it with -i")),
            // MQTT 3.1 knows no empty identifier, and none of more than 23 characters.
            (None, None) if self.version == Version::V3_1 => text("-i", &format!("ferromq{:016x}", random())),
            (None, None) => Ok(Text::new()),
        }
    }

    /// Properties of CONNECT go into the options they are of.
    fn connect_properties(&self, options: &mut ClientOptions) -> Result<(), Failure> {
        let session = &mut options.session;
        for property in &self.properties(Command::Connect)? {
            match property {
                Property::SessionExpiryInterval(seconds) => session.session_expiry = *seconds,
                Property::ReceiveMaximum(count) => session.receive_maximum = *count,
                Property::MaximumPacketSize(bytes) => session.limits.packet_bytes_max = *bytes,
                Property::TopicAliasMaximum(count) => session.topic_alias_maximum = *count,
                Property::RequestProblemInformation(on) => session.request_problem_information = *on,
                Property::RequestResponseInformation(on) => session.request_response_information = *on,
                Property::UserProperty(pair) => session.user_properties.push(pair.clone()),
                other => return Err(Failure::usage(format!("{other:?} is no property of CONNECT that can be set"))),
            }
        }
        Ok(())
    }

    fn will(&self) -> Result<Option<Will>, Failure> {
        let Some(topic) = &self.will_topic else { return Ok(None) };
        Ok(Some(Will {
            topic: TopicName::new(topic).map_err(|error| Failure::usage(format!("--will-topic {topic}: {error}")))?,
            payload: Bytes::from(self.will_payload.clone().unwrap_or_default().into_encoded_bytes()),
            qos: self.will_qos,
            retain: self.will_retain,
            properties: self.properties(Command::Will)?,
        }))
    }

    /// The server, and user name and password if the URL holds them.
    fn server(&self) -> Result<(ServerUrl, Option<Credentials>), Failure> {
        if let Some(path) = &self.unix {
            return Ok((server_url("--unix", &format!("unix://{}", path.display()))?, None));
        }
        let Some(url) = &self.url else {
            let scheme = if self.tls.is_wanted(self.port) { "mqtts" } else { "mqtt" };
            let port = self.port.map(|port| format!(":{port}")).unwrap_or_default();
            return Ok((server_url("-h", &format!("{scheme}://{}{port}", bracketed(&self.host)?))?, None));
        };
        let Some((scheme, rest)) = url.split_once("://") else { return Ok((server_url("-L", url)?, None)) };
        if scheme == "unix" {
            return Ok((server_url("-L", url)?, None));
        }
        let (user, rest) = rest.rsplit_once('@').map_or((None, rest), |(user, rest)| (Some(user), rest));
        if self.tls.is_wanted(None) && !matches!(scheme, "mqtts" | "wss" | "tls" | "ssl") {
            return Err(Failure::usage(format!("-L {url}: TLS options need mqtts:// or wss://")));
        }
        let rest = if has_topic(scheme) { rest.split_once('/').map_or(rest, |(host, _)| host) } else { rest };
        let credentials = user.map(|user| match user.split_once(':') {
            Some((name, password)) => (Some(name.to_owned()), Some(password.to_owned())),
            None => (Some(user.to_owned()), None),
        });
        Ok((server_url("-L", &format!("{scheme}://{rest}"))?, credentials))
    }
}

/// Whether what follows the host is the topic, as mosquitto's users know it.
fn has_topic(scheme: &str) -> bool {
    matches!(scheme, "mqtt" | "mqtts")
}

fn server_url(option: &str, url: &str) -> Result<ServerUrl, Failure> {
    url.parse().map_err(|error| Failure::usage(format!("{option}: {error}")))
}

/// The host as a URL has it: an IPv6 address, with or without brackets here, is in brackets there.
pub(super) fn bracketed(host: &str) -> Result<String, Failure> {
    if !host.contains(':') {
        return Ok(host.to_owned());
    }
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let address = bare.split_once('%').map_or(bare, |(address, _zone)| address);
    match address.parse::<Ipv6Addr>() {
        Ok(_) => Ok(format!("[{bare}]")),
        Err(_) => Err(Failure::usage(format!("-h {host}: a host or an address alone; name the port with -p"))),
    }
}

/// User name and password.
type Credentials = (Option<String>, Option<String>);

/// QoS as `-q` takes it.
pub(super) fn qos(text: &str) -> Result<QoS, String> {
    text.parse().ok().and_then(QoS::from_bits).ok_or_else(|| format!("{text:?} is no QoS: 0, 1 or 2"))
}

/// Text that MQTT can carry, from an option.
pub(super) fn text(option: &str, text: &str) -> Result<Text, Failure> {
    Text::try_from(text).map_err(|error| Failure::usage(format!("{option}: {error}")))
}

/// Seconds, with a fraction if need be.
pub(super) fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| format!("{text:?} is no number of seconds"))?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

/// As [`seconds`], and more than none.
pub(super) fn positive_seconds(text: &str) -> Result<Duration, String> {
    seconds(text).and_then(|time| if time.is_zero() { Err("must be more than 0".to_owned()) } else { Ok(time) })
}

/// A random number. A hasher of the standard library is keyed at random: entropy without another crate.
pub(super) fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

pub(super) fn version(text: &str) -> Result<Version, String> {
    match text {
        "3.1" | "31" | "mqttv31" => Ok(Version::V3_1),
        "3.1.1" | "311" | "4" | "mqttv311" => Ok(Version::V3_1_1),
        "5" | "5.0" | "mqttv5" => Ok(Version::V5),
        _ => Err(format!("{text:?} is no version: 3.1, 3.1.1 or 5")),
    }
}

fn session_expiry(text: &str) -> Result<u32, String> {
    match text {
        "never" | "-1" | "∞" => Ok(u32::MAX),
        _ => text.parse().map_err(|_| format!("{text:?} is no number of seconds")),
    }
}

impl FromStr for Command {
    type Err = Failure;

    fn from_str(text: &str) -> Result<Self, Failure> {
        match text.to_ascii_lowercase().as_str() {
            "connect" => Ok(Self::Connect),
            "publish" => Ok(Self::Publish),
            "subscribe" => Ok(Self::Subscribe),
            "will" => Ok(Self::Will),
            "disconnect" => Ok(Self::Disconnect),
            _ => {
                Err(Failure::usage(format!("-D {text}: the packet is connect, will, publish, subscribe or disconnect")))
            }
        }
    }
}

/// One property by the name that mosquitto's tools use.
fn property(to: Command, name: &str, values: &[String]) -> Result<Property, Failure> {
    let value = values.first().map(String::as_str).unwrap_or_default();
    let wrong = || Failure::usage(format!("-D {name}: {value:?} does not fit this property"));
    let is_pair = name == USER_PROPERTY;
    if values.len() != 1 + usize::from(is_pair) {
        let wanted = if is_pair { "a name and a value" } else { "one value" };
        return Err(Failure::usage(format!("-D {name} takes {wanted}")));
    }
    if !settable(to).contains(&name) {
        let (packet, known) = (format!("{to:?}").to_ascii_lowercase(), settable(to).join(", "));
        return Err(Failure::usage(format!("-D {packet} {name}: not one that can be set there; those are {known}")));
    }
    let number = || value.parse::<u32>().map_err(|_| wrong());
    let short = || value.parse::<u16>().map_err(|_| wrong());
    let option = format!("-D {name}");
    let flag = || match value {
        "0" | "false" => Ok(false),
        "1" | "true" => Ok(true),
        _ => Err(wrong()),
    };
    Ok(match name {
        "payload-format-indicator" => Property::PayloadFormatIndicator(u8::from(flag()?)),
        "message-expiry-interval" => Property::MessageExpiryInterval(number()?),
        "content-type" => Property::ContentType(text(&option, value)?),
        "response-topic" => Property::ResponseTopic(text(&option, value)?),
        "correlation-data" => Property::CorrelationData(Bytes::copy_from_slice(value.as_bytes())),
        "subscription-identifier" => Property::SubscriptionIdentifier(number()?),
        "session-expiry-interval" => Property::SessionExpiryInterval(number()?),
        "will-delay-interval" => Property::WillDelayInterval(number()?),
        "request-problem-information" => Property::RequestProblemInformation(flag()?),
        "request-response-information" => Property::RequestResponseInformation(flag()?),
        "receive-maximum" => Property::ReceiveMaximum(short()?),
        "topic-alias-maximum" => Property::TopicAliasMaximum(short()?),
        "topic-alias" => Property::TopicAlias(short()?),
        "maximum-packet-size" => Property::MaximumPacketSize(number()?),
        USER_PROPERTY => {
            let second = values.get(1).map(String::as_str).unwrap_or_default();
            Property::UserProperty((text(&option, value)?, text(&option, second)?))
        }
        _ => return Err(Failure::usage(format!("-D {name}: no such property"))),
    })
}

/// The properties that can be set in a packet.
const fn settable(to: Command) -> &'static [&'static str] {
    match to {
        Command::Connect => &[
            "session-expiry-interval",
            "receive-maximum",
            "maximum-packet-size",
            "topic-alias-maximum",
            "request-problem-information",
            "request-response-information",
            USER_PROPERTY,
        ],
        Command::Will => &[
            "will-delay-interval",
            "payload-format-indicator",
            "message-expiry-interval",
            "content-type",
            "response-topic",
            "correlation-data",
            USER_PROPERTY,
        ],
        Command::Publish => &[
            "payload-format-indicator",
            "message-expiry-interval",
            "content-type",
            "response-topic",
            "correlation-data",
            "topic-alias",
            USER_PROPERTY,
        ],
        Command::Subscribe => &["subscription-identifier", USER_PROPERTY],
        Command::Disconnect => &["session-expiry-interval"],
    }
}

/// Tells of a connection that is lost and of its return; all events go to the log.
async fn tell_events(mut events: EventStream, is_quiet: bool) {
    let mut is_lost = false;
    let tell = |message: String| {
        if !is_quiet {
            complain(&message);
        }
    };
    while let Some(event) = events.recv().await {
        match event {
            ClientEvent::Connecting { server } => tracing::info!(%server, "connecting"),
            ClientEvent::Connected { server, connected } => {
                let session_present = connected.session_present;
                tracing::info!(%server, session_present, "connected");
                if std::mem::take(&mut is_lost) {
                    tell(format!("connected to {server} again"));
                }
            }
            ClientEvent::Disconnected { reason: Some(reason), retry_in: Some(wait) } => {
                tracing::info!(%reason, retry_in = ?wait, "disconnected");
                if !std::mem::replace(&mut is_lost, true) {
                    tell(format!("{reason}; connecting again"));
                }
            }
            ClientEvent::Disconnected { reason: Some(reason), .. } => tracing::info!(%reason, "disconnected"),
            ClientEvent::Disconnected { reason: None, .. } => tracing::info!("disconnected"),
            ClientEvent::Reauthenticated => tracing::info!("authenticated again"),
        }
    }
}

const USER_PROPERTY: &str = "user-property";

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Far more than happen between two turns of the task that tells them.
const EVENTS_MAX: usize = 64;
