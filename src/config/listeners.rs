//! The `listeners` key, whose elements are URLs or tables, and `shards`, a number or "auto".

use std::{fmt, num::NonZeroUsize};

use serde::{
    Deserialize, Deserializer,
    de::{self, Visitor, value::MapAccessDeserializer},
};

use super::{ListenerConfig, ListenerTls, ListenerUrl, Pem, SHARDS_MAX, print::Page, sections::HIDDEN};

/// Reads the list.
pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<ListenerConfig>, D::Error> {
    let entries = Vec::<Entry>::deserialize(deserializer)?;
    Ok(entries.into_iter().map(|entry| entry.0).collect())
}

/// Reads the number of shards.
pub(super) fn deserialize_shards<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<NonZeroUsize>, D::Error> {
    struct ShardsVisitor;

    impl Visitor<'_> for ShardsVisitor {
        type Value = Option<NonZeroUsize>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "a number from 0 to {SHARDS_MAX} or \"auto\"")
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
            if text == "auto" { Ok(None) } else { Err(E::invalid_value(de::Unexpected::Str(text), &self)) }
        }

        fn visit_i64<E: de::Error>(self, number: i64) -> Result<Self::Value, E> {
            match usize::try_from(number) {
                Ok(shards) if shards <= SHARDS_MAX => Ok(NonZeroUsize::new(shards)),
                _ => Err(E::invalid_value(de::Unexpected::Signed(number), &self)),
            }
        }
    }

    deserializer.deserialize_any(ShardsVisitor)
}

/// Appends one `[[listeners]]` for each.
pub(super) fn print(listeners: &[ListenerConfig], page: &mut Page) {
    if listeners.is_empty() {
        page.key("listeners", &[], &[0_u8; 0]);
    }
    for listener in listeners {
        page.element("listeners");
        page.key(
            "url",
            &["tcp://host:port, tls://host:port, ws://host:port/path, wss://host:port/path or unix:///path."],
            &listener.url.to_string(),
        );
        page.key("max_connections", &["Connections at one time; 0 is no limit."], &listener.max_connections);
        page.key("backlog", &["Connections that the kernel completes ahead of the broker."], &listener.backlog);
        let about = "One socket for each shard: true, false, or \"auto\" for where that works well.";
        match listener.reuse_port {
            Some(reuse_port) => page.key("reuse_port", &[about], &reuse_port),
            None => page.key("reuse_port", &[about], &AUTO),
        }
        if let Some(tls) = &listener.tls {
            page.key("cert", &["Certificate chain, PEM: the path of a file, or the text."], &shown(&tls.cert));
            page.key("key", &["Its private key, PEM."], &shown(&tls.key));
            if let Some(ca) = &tls.client_ca {
                page.key("client_ca", &["Clients must show a certificate signed by one of these, PEM."], &shown(ca));
            }
        }
    }
}

/// A path as it is; text, which may be a key, not at all.
fn shown(pem: &Pem) -> String {
    match pem {
        Pem::File(path) => path.display().to_string(),
        Pem::Text(_) => HIDDEN.to_owned(),
    }
}

/// One element of the list.
struct Entry(ListenerConfig);

impl<'de> Deserialize<'de> for Entry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct EntryVisitor;

        impl<'de> Visitor<'de> for EntryVisitor {
            type Value = Entry;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a URL such as \"tcp://127.0.0.1:1883\" or a table with the key url")
            }

            fn visit_str<E: de::Error>(self, url: &str) -> Result<Entry, E> {
                url.parse().map(|url| Entry(ListenerConfig::new(url))).map_err(E::custom)
            }

            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<Entry, A::Error> {
                let table = Table::deserialize(MapAccessDeserializer::new(map))?;
                let tls = table.tls()?;
                let defaults = ListenerConfig::new(table.url);
                Ok(Entry(ListenerConfig {
                    max_connections: table.max_connections.unwrap_or(defaults.max_connections),
                    backlog: table.backlog.unwrap_or(defaults.backlog),
                    reuse_port: table.reuse_port.map_or(defaults.reuse_port, |auto| auto.0),
                    tls,
                    ..defaults
                }))
            }
        }

        deserializer.deserialize_any(EntryVisitor)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    #[serde(deserialize_with = "url")]
    url: ListenerUrl,
    max_connections: Option<usize>,
    backlog: Option<u32>,
    reuse_port: Option<BoolOrAuto>,
    cert: Option<String>,
    key: Option<String>,
    client_ca: Option<String>,
}

impl Table {
    /// What belongs together must come together.
    fn tls<E: de::Error>(&self) -> Result<Option<ListenerTls>, E> {
        let pem = |text: &String| Pem::from(text.as_str());
        match (&self.cert, &self.key) {
            (Some(cert), Some(key)) if self.url.is_tls() => {
                Ok(Some(ListenerTls { cert: pem(cert), key: pem(key), client_ca: self.client_ca.as_ref().map(pem) }))
            }
            (None, None) if self.client_ca.is_none() => Ok(None),
            (None, _) => Err(E::custom("cert is missing: TLS needs a certificate and its key")),
            (_, None) => Err(E::custom("key is missing: TLS needs a certificate and its key")),
            _ => Err(E::custom("cert and key are of no use without TLS: write tls:// or wss://, or leave them out")),
        }
    }
}

fn url<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ListenerUrl, D::Error> {
    String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
}

struct BoolOrAuto(Option<bool>);

impl<'de> Deserialize<'de> for BoolOrAuto {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct BoolVisitor;

        impl Visitor<'_> for BoolVisitor {
            type Value = BoolOrAuto;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("true, false or \"auto\"")
            }

            fn visit_bool<E: de::Error>(self, value: bool) -> Result<BoolOrAuto, E> {
                Ok(BoolOrAuto(Some(value)))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<BoolOrAuto, E> {
                if text == AUTO {
                    Ok(BoolOrAuto(None))
                } else {
                    Err(E::invalid_value(de::Unexpected::Str(text), &self))
                }
            }
        }

        deserializer.deserialize_any(BoolVisitor)
    }
}

const AUTO: &str = "auto";
