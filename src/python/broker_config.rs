//! A broker's settings from Python: a file, a dictionary and keyword arguments, one table in the end; keywords win.
//!
//! All of it is read as TOML by `config`, so that names, units and complaints are those of the file.

use std::{collections::HashMap, time::Duration};

use pyo3::{
    exceptions::{PyOverflowError, PyTypeError},
    prelude::*,
    types::{PyBool, PyDict, PyFloat, PyInt, PyList, PyString, PyTuple},
};
use toml::{Table, Value};

use super::{
    errors,
    options::number,
    payload::Data,
    tls::{self, Tls},
};
use crate::{
    auth::Acl,
    config::{BrokerConfig, ConfigError, SHARDS_MAX, preset, preset_names},
    server::{self, BrokerBuilder},
};

/// The keyword arguments of `Broker`.
pub(crate) struct BrokerArguments<'py> {
    pub(crate) listeners: Option<Bound<'py, PyAny>>,
    pub(crate) config: Option<Bound<'py, PyAny>>,
    pub(crate) users: Option<Bound<'py, PyDict>>,
    pub(crate) allow_anonymous: Option<bool>,
    pub(crate) acl: Option<Bound<'py, PyAny>>,
    pub(crate) store: Option<std::path::PathBuf>,
    pub(crate) shards: Option<i64>,
    pub(crate) seed: Option<u64>,
    pub(crate) drain_timeout: Duration,
    pub(crate) tables: [(&'static str, Option<Bound<'py, PyDict>>); 6],
    pub(crate) like: Option<&'py str>,
}

/// What a broker is started with, as often as need be.
pub(crate) struct BrokerSettings {
    config: BrokerConfig,
    shards: usize,
    seed: Option<u64>,
    drain_timeout: Duration,
    pub(crate) users: HashMap<String, Vec<u8>>,
    pub(crate) allow_anonymous: bool,
}

impl BrokerArguments<'_> {
    pub(crate) fn to_settings(&self, py: Python<'_>) -> PyResult<BrokerSettings> {
        let (given, name) = self.base(py)?;
        let mut table = self.like(py)?;
        lay_over(&mut table, given);
        for (key, given) in &self.tables {
            let Some(given) = given else { continue };
            let section = table.entry(*key).or_insert_with(|| Value::Table(Table::new()));
            let Value::Table(section) = section else {
                return Err(errors::invalid(py, &format!("{key} in {name} must be a table")));
            };
            section.extend(to_table(given)?);
        }
        move_packet_size(&mut table);
        if let Some(acl) = &self.acl {
            let value = match to_value(acl)? {
                Value::Array(rules) => Value::Table(Table::from_iter([("rules".to_owned(), Value::Array(rules))])),
                table => table,
            };
            table.insert("acl".into(), value);
        }
        if let Some(listeners) = &self.listeners {
            table.insert("listeners".into(), to_value(listeners)?);
        } else if !table.contains_key("listeners") {
            table.insert("listeners".into(), Value::Array(vec![Value::String(ANY_PORT.into())]));
        }
        if let Some(store) = &self.store {
            let Some(store) = store.to_str() else {
                return Err(errors::invalid(py, &format!("store is a path in Unicode, not {}", store.display())));
            };
            table.insert("store".into(), Value::String(store.to_owned()));
        }
        let text = toml::to_string(&table).map_err(|error| errors::invalid(py, &error.to_string()))?;
        let config = BrokerConfig::from_toml(&text, &name).map_err(|error| without_line(py, error))?;
        let shards = match (self.shards, config.shards) {
            (Some(shards), _) => number(py, "shards", shards, 0..=i64::try_from(SHARDS_MAX).unwrap_or(i64::MAX))?,
            (None, Some(shards)) => shards.get(),
            (None, None) => DEFAULT_SHARDS,
        };
        let users = self.users(&config)?;
        // Whoever names users means them; anybody else may be let in on request.
        let allow_anonymous = self.allow_anonymous.unwrap_or(users.is_empty() && config.auth.allow_anonymous);
        let (seed, drain_timeout) = (self.seed, self.drain_timeout);
        Ok(BrokerSettings { config, shards, seed, drain_timeout, users, allow_anonymous })
    }

    /// The table of a weaker broker, if one was named.
    fn like(&self, py: Python<'_>) -> PyResult<Table> {
        let Some(name) = self.like else { return Ok(Table::new()) };
        let tables = preset(name).ok_or_else(|| {
            let names = preset_names().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ");
            errors::invalid(py, &format!("like is one of {names}, not {name:?}"))
        })?;
        tables.parse().map_err(|error: toml::de::Error| errors::invalid(py, &error.to_string()))
    }

    /// The table before keywords, and what to call it.
    fn base(&self, py: Python<'_>) -> PyResult<(Table, String)> {
        let Some(config) = &self.config else { return Ok((Table::new(), "the keyword arguments".into())) };
        if let Ok(config) = config.cast::<PyDict>() {
            return Ok((to_table(config)?, "config".into()));
        }
        let path: std::path::PathBuf =
            config.extract().map_err(|_| PyTypeError::new_err("config is the path of a TOML file, or a dictionary"))?;
        // Read as it is, so that complaints name its lines.
        BrokerConfig::load(&path).map_err(|error| errors::invalid(py, &error.to_string()))?;
        let text = std::fs::read_to_string(&path)?;
        let table = text.parse().map_err(|error: toml::de::Error| errors::invalid(py, &error.to_string()))?;
        Ok((table, path.display().to_string()))
    }

    fn users(&self, config: &BrokerConfig) -> PyResult<HashMap<String, Vec<u8>>> {
        let named = config.auth.users.iter();
        let mut users: HashMap<_, _> =
            named.map(|(name, password)| (name.clone(), password.expose().as_bytes().to_vec())).collect();
        if let Some(given) = &self.users {
            for (name, password) in given {
                users.insert(name.extract()?, Data::extract(&password, None)?.as_slice().to_vec());
            }
        }
        Ok(users)
    }
}

impl BrokerSettings {
    /// Who may publish and subscribe to what, if the settings say so.
    pub(crate) fn acl(&self) -> Option<Acl> {
        self.config.acl.authorizer()
    }

    /// The certificate of the first listener with TLS.
    pub(crate) fn certificate(&self, py: Python<'_>) -> PyResult<Option<String>> {
        let mut secure = self.config.listeners.iter().filter_map(|listener| listener.tls.as_ref());
        secure.next().map(|tls| tls::text(py, &tls.cert)).transpose()
    }

    pub(crate) fn builder(&self) -> BrokerBuilder {
        let mut settings = self.config.settings();
        settings.allow_anonymous = self.allow_anonymous;
        let mut builder =
            server::Broker::builder().settings(settings).shards(self.shards).drain_timeout(self.drain_timeout);
        for listener in &self.config.listeners {
            builder = builder.listen(listener.clone());
        }
        if let Some(directory) = &self.config.store {
            builder = builder.store(directory, self.config.store_durability.into());
        }
        match self.seed {
            Some(seed) => builder.seed(seed),
            None => builder,
        }
    }
}

/// A limit to whoever looks for it, and a capability to the protocol, which tells clients of it.
fn move_packet_size(table: &mut Table) {
    let Some(Value::Table(limits)) = table.get_mut("limits") else { return };
    let Some(size) = limits.remove("max_packet_size") else { return };
    let capabilities = table.entry("capabilities").or_insert_with(|| Value::Table(Table::new()));
    if let Value::Table(capabilities) = capabilities {
        capabilities.entry("maximum_packet_size").or_insert(size);
    }
}

/// Has the keys of `upper` win over those of `lower`, table by table.
fn lay_over(lower: &mut Table, upper: Table) {
    for (key, value) in upper {
        match (lower.get_mut(&key), value) {
            (Some(Value::Table(below)), Value::Table(above)) => below.extend(above),
            (_, value) => drop(lower.insert(key, value)),
        }
    }
}

/// The argument `seed`.
pub(crate) fn seed_argument(value: &Bound<'_, PyAny>) -> PyResult<Option<u64>> {
    value.extract().map_err(|error: PyErr| {
        if error.is_instance_of::<PyOverflowError>(value.py()) {
            return errors::invalid(value.py(), &format!("seed is 0 to {}, not {value}", u64::MAX));
        }
        error
    })
}

/// What is wrong, but not in which line: the text that was read is one that nobody has written.
fn without_line(py: Python<'_>, error: ConfigError) -> PyErr {
    errors::invalid(py, &ConfigError { line: None, ..error }.to_string())
}

fn to_table(dict: &Bound<'_, PyDict>) -> PyResult<Table> {
    dict.iter().map(|(key, value)| Ok((key.extract()?, to_value(&value)?))).collect()
}

fn to_value(value: &Bound<'_, PyAny>) -> PyResult<Value> {
    if let Ok(flag) = value.cast::<PyBool>() {
        return Ok(Value::Boolean(flag.is_true()));
    }
    if value.is_instance_of::<PyInt>() {
        return Ok(Value::Integer(value.extract()?));
    }
    if value.is_instance_of::<PyFloat>() {
        return Ok(Value::Float(value.extract()?));
    }
    if let Ok(text) = value.cast::<PyString>() {
        return Ok(Value::String(text.to_str()?.to_owned()));
    }
    if let Ok(dict) = value.cast::<PyDict>() {
        return Ok(Value::Table(to_table(dict)?));
    }
    if let Ok(tls) = value.cast::<Tls>() {
        return Ok(Value::Table(tls.get().to_table()));
    }
    if value.is_instance_of::<PyList>() || value.is_instance_of::<PyTuple>() {
        return value.try_iter()?.map(|item| to_value(&item?)).collect::<PyResult<_>>().map(Value::Array);
    }
    let class = value.get_type().name()?.to_string();
    Err(PyTypeError::new_err(format!("a setting is a number, str, bool, list or dict, not {class}")))
}

/// Where a broker listens that was not told: on this machine only, wherever there is room.
const ANY_PORT: &str = "tcp://127.0.0.1:0";

/// An embedded broker shares its machine with the program around it.
const DEFAULT_SHARDS: usize = 1;
