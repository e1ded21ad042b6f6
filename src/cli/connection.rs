//! What `pub`, `sub` and `rr` share: where to connect, as whom, with which properties. The letters are those that
//! users of mosquitto_pub and mosquitto_sub know.

use std::{path::PathBuf, str::FromStr, time::Duration};

use bytes::Bytes;
use clap::Args;

use super::Failure;
use crate::{
    client::{Client, ClientEvent, ClientOptions, MailboxOptions, Reconnect, ServerUrl},
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
    #[arg(short = 'h', long = "host", default_value = "localhost", conflicts_with = "url")]
    host: String,
    /// Port of the broker [default: 1883]
    #[arg(short = 'p', long = "port", conflicts_with = "url")]
    port: Option<u16>,
    /// Unix socket of the broker, instead of host and port.
    #[arg(long, value_name = "PATH", conflicts_with_all = ["url", "host", "port"])]
    unix: Option<PathBuf>,
    /// All in one: mqtt://[user[:password]@]host[:port]/topic, ws://host:port/path, unix:///path
    #[arg(short = 'L', long = "url", value_name = "URL")]
    url: Option<String>,
    /// Client identifier; the broker assigns one if it is left out.
    #[arg(short = 'i', long = "id")]
    id: Option<String>,
    /// Client identifier: this and the process id.
    #[arg(short = 'I', long = "id-prefix", conflicts_with = "id")]
    id_prefix: Option<String>,
    /// User name.
    #[arg(short = 'u', long = "username")]
    username: Option<String>,
    /// Password.
    #[arg(short = 'P', long = "pw")]
    password: Option<String>,
    /// Protocol version: 3.1, 3.1.1 or 5 (also mqttv31, mqttv311, mqttv5).
    #[arg(short = 'V', long = "protocol-version", default_value = "5", value_parser = version)]
    pub(super) version: Version,
    /// Keep-alive, seconds.
    #[arg(short = 'k', long = "keepalive", default_value_t = 60)]
    keep_alive: u16,
    /// Keep the session: do not start clean.
    #[arg(short = 'c', long = "disable-clean-session")]
    pub(super) keep_session: bool,
    /// Session expiry interval, seconds (MQTT 5); "never" or 4294967295 for a session that does not end.
    #[arg(short = 'x', long = "session-expiry-interval", value_parser = session_expiry)]
    session_expiry: Option<u32>,
    /// Topic of the will.
    #[arg(long)]
    will_topic: Option<String>,
    /// Payload of the will.
    #[arg(long, requires = "will_topic")]
    will_payload: Option<String>,
    /// QoS of the will.
    #[arg(long, requires = "will_topic", default_value = "0", value_parser = qos)]
    will_qos: QoS,
    /// Retain the will.
    #[arg(long, requires = "will_topic")]
    will_retain: bool,
    /// An MQTT 5 property: COMMAND NAME VALUE, for instance `publish content-type text/plain` or
    /// `connect user-property name value`; may be repeated.
    #[arg(short = 'D', long = "property", num_args = 3..=4, action = clap::ArgAction::Append, value_names = ["COMMAND", "NAME", "VALUE", "VALUE2"])]
    properties: Vec<String>,
    /// Tells what happens on standard error.
    #[arg(short = 'd', long = "debug")]
    pub(super) debug: bool,
}

/// Packets that a property can be given for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Command {
    Connect,
    Publish,
    Subscribe,
    Will,
}

impl Connection {
    /// Connects, and goes on reconnecting later. What a resumed session sends before it is subscribed to anew goes to
    /// the mailbox `unmatched`, if there is one.
    pub(super) async fn open(&self, unmatched: Option<MailboxOptions>) -> Result<Client, Failure> {
        if self.debug {
            super::log::start(LogLevel::Debug, LogFormat::Text);
        }
        let client = Client::connect(ClientOptions { unmatched, ..self.options()? }).await?;
        if self.debug {
            tell_events(&client);
        }
        Ok(client)
    }

    /// The topic that `-L` names behind the host.
    pub(super) fn url_topic(&self) -> Option<String> {
        let rest = self.url.as_deref()?.strip_prefix("mqtt://")?;
        let (_, topic) = rest.split_once('/')?;
        (!topic.is_empty()).then(|| topic.to_owned())
    }

    /// The properties given for a packet.
    pub(super) fn properties(&self, command: Command) -> Result<Properties, Failure> {
        let mut properties = Properties::new();
        let mut given = &self.properties[..];
        while let [to, name, rest @ ..] = given {
            // All have one value but a user property, which is a pair.
            let (values, rest) = rest.split_at_checked(1 + usize::from(name == USER_PROPERTY)).unwrap_or((rest, &[]));
            if Command::from_str(to)? == command {
                properties.push(property(name, values)?);
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
        session.client_id = match (&self.id, &self.id_prefix) {
            (Some(id), _) => text(id)?,
            (None, Some(prefix)) => text(&format!("{prefix}{}", std::process::id()))?,
            (None, None) if self.keep_session => {
                return Err(Failure::usage("-c keeps a session: name it with -i"));
            }
            (None, None) => Text::new(),
        };
        let (url_name, url_password) = url_user.unwrap_or_default();
        session.username = self.username.clone().or(url_name).map(|name| text(&name)).transpose()?;
        session.password = self.password.clone().or(url_password).map(|password| Bytes::from(password.into_bytes()));
        session.will = self.will()?;
        self.connect_properties(&mut options)?;
        options.reconnect = Some(Reconnect { attempts_max: Some(RECONNECTS_MAX), ..Reconnect::default() });
        options.connect_timeout = CONNECT_TIMEOUT;
        Ok(options)
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
            topic: TopicName::new(topic)?,
            payload: Bytes::from(self.will_payload.clone().unwrap_or_default().into_bytes()),
            qos: self.will_qos,
            retain: self.will_retain,
            properties: self.properties(Command::Will)?,
        }))
    }

    /// The server, and user name and password if the URL holds them.
    fn server(&self) -> Result<(ServerUrl, Option<Credentials>), Failure> {
        if let Some(path) = &self.unix {
            return Ok((format!("unix://{}", path.display()).parse()?, None));
        }
        let Some(url) = &self.url else {
            let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
            return Ok((format!("mqtt://{host}:{}", self.port.unwrap_or(MQTT_PORT)).parse()?, None));
        };
        let Some((scheme, rest)) = url.split_once("://") else { return Ok((url.parse()?, None)) };
        if scheme == "unix" {
            return Ok((url.parse()?, None));
        }
        let (user, rest) = rest.rsplit_once('@').map_or((None, rest), |(user, rest)| (Some(user), rest));
        // In the form that mosquitto knows, what follows the host of mqtt:// is the topic.
        let rest = if scheme == "mqtt" { rest.split_once('/').map_or(rest, |(host, _)| host) } else { rest };
        let credentials = user.map(|user| match user.split_once(':') {
            Some((name, password)) => (Some(name.to_owned()), Some(password.to_owned())),
            None => (Some(user.to_owned()), None),
        });
        Ok((format!("{scheme}://{rest}").parse()?, credentials))
    }
}

/// User name and password.
type Credentials = (Option<String>, Option<String>);

/// QoS as `-q` takes it.
pub(super) fn qos(text: &str) -> Result<QoS, String> {
    text.parse().ok().and_then(QoS::from_bits).ok_or_else(|| format!("{text:?} is no QoS: 0, 1 or 2"))
}

/// Text that MQTT can carry.
pub(super) fn text(text: &str) -> Result<Text, Failure> {
    Ok(Text::try_from(text)?)
}

/// Seconds, with a fraction if need be.
pub(super) fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| format!("{text:?} is no number of seconds"))?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

fn version(text: &str) -> Result<Version, String> {
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
            _ => Err(Failure::usage(format!("-D {text}: the packet is connect, publish, subscribe or will"))),
        }
    }
}

/// One property by the name that mosquitto's tools use.
fn property(name: &str, values: &[String]) -> Result<Property, Failure> {
    let value = values.first().map(String::as_str).unwrap_or_default();
    let wrong = || Failure::usage(format!("-D {name}: {value:?} does not fit this property"));
    let is_pair = name == USER_PROPERTY;
    if values.len() != 1 + usize::from(is_pair) {
        let wanted = if is_pair { "a name and a value" } else { "one value" };
        return Err(Failure::usage(format!("-D {name} takes {wanted}")));
    }
    let number = || value.parse::<u32>().map_err(|_| wrong());
    let short = || value.parse::<u16>().map_err(|_| wrong());
    let flag = || match value {
        "0" | "false" => Ok(false),
        "1" | "true" => Ok(true),
        _ => Err(wrong()),
    };
    Ok(match name {
        "payload-format-indicator" => Property::PayloadFormatIndicator(u8::from(flag()?)),
        "message-expiry-interval" => Property::MessageExpiryInterval(number()?),
        "content-type" => Property::ContentType(text(value)?),
        "response-topic" => Property::ResponseTopic(text(value)?),
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
            Property::UserProperty((text(value)?, text(values.get(1).map(String::as_str).unwrap_or_default())?))
        }
        _ => return Err(Failure::usage(format!("-D {name}: no such property"))),
    })
}

/// Writes connection events to the log while the client lives.
fn tell_events(client: &Client) {
    let mut events = client.events();
    tokio::spawn(async move {
        while let Some(event) = events.recv().await {
            match event {
                ClientEvent::Connecting { server } => tracing::info!(%server, "connecting"),
                ClientEvent::Connected { server, connected } => tracing::info!(%server, ?connected, "connected"),
                ClientEvent::Disconnected { reason, retry_in } => tracing::info!(?reason, ?retry_in, "disconnected"),
                ClientEvent::Reauthenticated => tracing::info!("authenticated again"),
            }
        }
    });
}

const USER_PROPERTY: &str = "user-property";

const MQTT_PORT: u16 = 1883;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A command line tool does not try for ever.
const RECONNECTS_MAX: u32 = 10;
