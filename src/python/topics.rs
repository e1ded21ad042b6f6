//! Topic helpers, and filters with named wildcards: `plant/{line}/temp` is `plant/+/temp` with a name for the `+`.

use std::sync::Arc;

use pyo3::{prelude::*, types::PyDict};

use super::errors::{self, Kind};
use crate::codec::{
    Limits, Text, TopicFilter,
    topic::{InvalidTopic, check_filter, check_name},
};

/// A filter with names for some of its levels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pattern {
    /// As it was given.
    source: Arc<str>,
    filter: TopicFilter,
    names: Arc<[Named]>,
    /// Levels in front of the filter proper that topics do not have: `$share/group`.
    skipped: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Named {
    level: usize,
    name: Box<str>,
    /// It stands for this level and all below.
    is_rest: bool,
}

impl Pattern {
    /// Parses a filter in which a level may be `{name}`, and the last one `{name:#}`.
    pub(crate) fn parse(py: Python<'_>, text: &str) -> PyResult<Self> {
        let mut names = Vec::new();
        let mut levels: Vec<&str> = text.split('/').collect();
        let last = levels.len() - 1;
        let skipped = if levels[0] == "$share" { 2 } else { 0 };
        for (at, level) in levels.iter_mut().enumerate().skip(skipped) {
            let Some(inner) = level.strip_prefix('{').and_then(|level| level.strip_suffix('}')) else {
                if level.starts_with('{') || (level.ends_with('}') && !level.contains('{')) {
                    return Err(half_open(py, text, level));
                }
                continue;
            };
            let (name, is_rest) = inner.strip_suffix(":#").map_or((inner, false), |name| (name, true));
            let level_of_topic = at - skipped;
            if !is_identifier(name) || names.iter().any(|known: &Named| *known.name == *name) || (is_rest && at != last)
            {
                return Err(bad_name(py, text, level));
            }
            names.push(Named { level: level_of_topic, name: name.into(), is_rest });
            *level = if is_rest { "#" } else { "+" };
        }
        let filter = parse_filter(py, &levels.join("/"))?;
        Ok(Self { source: text.into(), filter, names: names.into(), skipped })
    }

    /// The filter to subscribe with.
    pub(crate) fn filter(&self) -> &TopicFilter {
        &self.filter
    }

    /// As it was given, with its names.
    pub(crate) fn source(&self) -> &str {
        &self.source
    }

    /// Whether any level has a name.
    pub(crate) fn has_names(&self) -> bool {
        !self.names.is_empty()
    }

    /// What stands in `topic` where the pattern has names.
    pub(crate) fn params<'py>(&self, py: Python<'py>, topic: &str) -> PyResult<Bound<'py, PyDict>> {
        let params = PyDict::new(py);
        for named in self.names.iter() {
            let value = if named.is_rest {
                topic.splitn(named.level + 1, '/').nth(named.level)
            } else {
                topic.split('/').nth(named.level)
            };
            // `a/#` matches `a` too, and then there is no rest.
            params.set_item(&*named.name, value.unwrap_or_default())?;
        }
        Ok(params)
    }
}

/// Whether a topic matches a filter, which may be a shared one and may have named levels.
///
/// Raises:
///     InvalidTopic: One of them is not valid.
#[pyfunction]
pub(crate) fn topic_matches(py: Python<'_>, filter: &str, topic: &str) -> PyResult<bool> {
    validate_topic(py, topic)?;
    Ok(Pattern::parse(py, filter)?.filter.matches(topic))
}

/// The plain filter of a filter with named levels, and the level of each name, counted from 0.
///
/// `"plant/{line}/temp"` gives `("plant/+/temp", {"line": 1})`.
///
/// Raises:
///     InvalidTopic: It is not valid.
#[pyfunction]
pub(crate) fn parse_pattern<'py>(py: Python<'py>, pattern: &str) -> PyResult<(String, Bound<'py, PyDict>)> {
    let pattern = Pattern::parse(py, pattern)?;
    let names = PyDict::new(py);
    for named in pattern.names.iter() {
        names.set_item(&*named.name, named.level + pattern.skipped)?;
    }
    Ok((pattern.filter.as_str().to_owned(), names))
}

/// Raise `InvalidTopic` unless this is a valid topic name.
#[pyfunction]
pub(crate) fn validate_topic(py: Python<'_>, topic: &str) -> PyResult<()> {
    check_name(topic, &Limits::default()).map_err(|fault| invalid_topic(py, topic, &fault))
}

/// Raise `InvalidTopic` unless this is a valid topic filter.
#[pyfunction]
pub(crate) fn validate_filter(py: Python<'_>, filter: &str) -> PyResult<()> {
    check_filter(filter, &Limits::default()).map_err(|fault| invalid_topic(py, filter, &fault))
}

/// A valid filter.
pub(crate) fn parse_filter(py: Python<'_>, filter: &str) -> PyResult<TopicFilter> {
    validate_filter(py, filter)?;
    let text = text(py, filter)?;
    TopicFilter::parse(text, &Limits::default()).map_err(|fault| invalid_topic(py, filter, &fault))
}

/// A string as MQTT has it.
pub(crate) fn text(py: Python<'_>, text: &str) -> PyResult<Text> {
    Text::try_from(text).map_err(|fault| errors::invalid(py, &fault.to_string()))
}

fn invalid_topic(py: Python<'_>, topic: &str, fault: &InvalidTopic) -> PyErr {
    errors::new(py, Kind::InvalidTopic, &format!("{topic:?}: {fault}"))
}

fn bad_name(py: Python<'_>, pattern: &str, level: &str) -> PyErr {
    let message = format!(
        "{pattern:?}: {level} must hold a Python identifier that occurs once, and {{name:#}} must be the last level"
    );
    errors::new(py, Kind::InvalidTopic, &message)
}

fn half_open(py: Python<'_>, pattern: &str, level: &str) -> PyErr {
    let message = format!(
        "{pattern:?}: {level:?} has one brace only; {{name}} takes a whole level, and + stands for one with a lone brace"
    );
    errors::new(py, Kind::InvalidTopic, &message)
}

fn is_identifier(name: &str) -> bool {
    let is_word = name.chars().all(|character| character == '_' || character.is_alphanumeric());
    is_word && name.chars().next().is_some_and(|first| !first.is_numeric())
}
