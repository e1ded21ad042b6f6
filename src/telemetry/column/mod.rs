//! A column that is being filled, one value a row, and learns its type on the way.
//!
//! A column without a given [`Kind`] takes the type of the first value and widens when one does not fit: whole numbers
//! to floating point where that is exact, everything else to JSON text, which holds any value. So no value is lost, and
//! a type only ever widens. A column with a given kind never changes; what does not fit there is null and a fault.
//! After [`Context::is_frozen`] (a file's schema is written) nothing widens: what does not fit is a misfit, for the
//! table to keep beside.

mod finish;
mod list;
mod record;
mod render;
mod seed;
mod strings;

use arrow_buffer::BooleanBufferBuilder;

use super::kind::Kind;

pub(crate) use finish::categories as finish_categories;
pub(crate) use list::List;
use record::Key;
pub(crate) use record::Record;
pub(crate) use render::{
    CONTENT, is_json, is_level, is_present, json_field, key_at, level_field, render, render_object, write_json_text,
};
pub(crate) use seed::{RootSeed, VALUE};
pub(crate) use strings::Categories;
use strings::Strings;

/// What one payload may do, and what it did.
#[derive(Debug)]
pub(crate) struct Context {
    /// Levels of nesting that may still be entered.
    pub(crate) depth_left: usize,
    /// Values that may still be written, nulls included.
    pub(crate) cells_left: usize,
    /// Columns that may still be made.
    pub(crate) columns_left: usize,
    /// No column may be made or widened.
    pub(crate) is_frozen: bool,
    /// The first value that a given type does not hold.
    pub(crate) fault: Option<String>,
    /// Values that have no place: where they were, and their JSON text. Innermost first: who calls adds its name.
    pub(crate) misfits: Vec<(String, String)>,
}

/// A column that is being filled.
#[derive(Debug)]
pub(crate) struct Column {
    values: Values,
    valid: BooleanBufferBuilder,
    kind: Option<Kind>,
    /// It has held a whole number that floating point cannot.
    is_wide: bool,
}

/// The values of a column. Those of given kinds have the type of the widest of their family until [`Column::finish`].
#[derive(Debug)]
enum Values {
    /// Nothing but nulls so far.
    Null,
    Bool(BooleanBufferBuilder),
    Int(Vec<i64>),
    UInt(Vec<u64>),
    Float(Vec<f64>),
    Text(Strings),
    Category(Categories),
    Binary(Strings),
    Json(Strings),
    List(Box<List>),
    Struct(Box<Record>),
}

/// A value that is no list and no map.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Scalar<'a> {
    Bool(bool),
    Int(i64),
    /// Beyond what `Int` holds.
    UInt(u64),
    Float(f64),
    Text(&'a str),
    Binary(&'a [u8]),
    /// JSON text: a number that no type holds.
    Json(&'a str),
}

impl Context {
    /// Enters a list or a map; whether there is a level left.
    pub(crate) fn enter(&mut self) -> bool {
        let may = self.depth_left > 0;
        self.depth_left = self.depth_left.saturating_sub(1);
        may
    }

    pub(crate) fn leave(&mut self) {
        self.depth_left += 1;
    }

    /// Counts values; whether they are within the bound.
    #[inline]
    pub(crate) fn spend(&mut self, cells: usize) -> bool {
        let may = self.cells_left >= cells;
        self.cells_left = self.cells_left.saturating_sub(cells);
        may
    }

    /// Names misfits since `from` after what holds them.
    pub(crate) fn name_misfits(&mut self, from: usize, name: &str) {
        for (path, _) in self.misfits.iter_mut().skip(from) {
            let dot = if path.is_empty() || path.starts_with('[') { "" } else { "." };
            *path = format!("{name}{dot}{path}");
        }
    }
}

impl Column {
    /// An empty column: of a given kind, or one that learns.
    pub(crate) fn new(kind: Option<Kind>) -> Self {
        let values = match &kind {
            None => Values::Null,
            Some(Kind::Bool) => Values::Bool(BooleanBufferBuilder::new(0)),
            Some(Kind::Int(_) | Kind::Timestamp(_)) => Values::Int(Vec::new()),
            Some(Kind::UInt(_)) => Values::UInt(Vec::new()),
            Some(Kind::Float(_)) => Values::Float(Vec::new()),
            Some(Kind::Text) => Values::Text(Strings::default()),
            Some(Kind::Category) => Values::Category(Categories::default()),
            Some(Kind::Binary) => Values::Binary(Strings::default()),
            Some(Kind::Json) => Values::Json(Strings::default()),
            Some(Kind::List(item)) => Values::List(Box::new(List::new(Self::new(Some((**item).clone()))))),
            Some(Kind::Struct(fields)) => Values::Struct(Box::new(Record::closed(fields))),
        };
        Self { values, valid: BooleanBufferBuilder::new(0), kind, is_wide: false }
    }

    /// A column that learns, with `len` nulls.
    pub(crate) fn learning(len: usize) -> Self {
        let mut column = Self::new(None);
        column.valid.append_n(len, false);
        column
    }

    /// Values so far.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.valid.len()
    }

    /// Columns in which a null of it is one.
    #[inline]
    pub(crate) fn leaves(&self) -> usize {
        match &self.values {
            Values::Struct(record) => record.leaves().max(1),
            _ => 1,
        }
    }

    /// Appends nulls until there are `len` values.
    #[inline]
    pub(crate) fn pad(&mut self, len: usize) {
        if self.len() < len {
            self.append_nulls(len - self.len());
        }
    }

    /// Forgets values from `len` on, and whatever of an unfinished one is in nested columns.
    pub(crate) fn truncate(&mut self, len: usize) {
        if self.valid.len() > len {
            self.valid.truncate(len);
        }
        match &mut self.values {
            Values::Bool(values) if values.len() > len => values.truncate(len),
            Values::Null | Values::Bool(_) => {}
            Values::Int(values) => values.truncate(len),
            Values::UInt(values) => values.truncate(len),
            Values::Float(values) => values.truncate(len),
            Values::Text(values) | Values::Binary(values) | Values::Json(values) => values.truncate(len),
            Values::Category(values) => values.truncate(len),
            Values::List(list) => list.truncate(len),
            Values::Struct(record) => record.truncate(len),
        }
    }

    /// Appends a value.
    #[inline]
    pub(crate) fn push(&mut self, value: Scalar<'_>, context: &mut Context) {
        // The types that most values have, and that learn nothing new.
        match (&mut self.values, value) {
            (Values::Float(values), Scalar::Float(value)) => values.push(value),
            (Values::Int(values), Scalar::Int(value)) if self.kind.is_none() => {
                self.is_wide |= value.unsigned_abs() > EXACT_MAX;
                values.push(value);
            }
            (Values::Text(values), Scalar::Text(value)) => values.push(value.as_bytes()),
            (Values::Bool(values), Scalar::Bool(value)) => values.append(value),
            _ => return self.push_other(value, context),
        }
        self.valid.append(true);
    }

    /// Appends a null.
    pub(crate) fn push_null(&mut self) {
        self.append_nulls(1);
    }

    #[cold]
    fn push_other(&mut self, value: Scalar<'_>, context: &mut Context) {
        if self.fits(value) {
            self.append(value);
            self.valid.append(true);
            return;
        }
        if self.kind.is_some() {
            let kind = self.kind.as_ref().map(ToString::to_string).unwrap_or_default();
            context.fault.get_or_insert_with(|| format!("{} is no {kind}", value.shown()));
            return self.push_null();
        }
        if context.is_frozen {
            context.misfits.push((String::new(), value.to_json()));
            return self.push_null();
        }
        self.widen_for(value);
        self.is_wide |= matches!(value, Scalar::Int(value) if value.unsigned_abs() > EXACT_MAX);
        self.append(value);
        self.valid.append(true);
    }

    /// Whether a value can be appended as the column is.
    fn fits(&self, value: Scalar<'_>) -> bool {
        match (&self.values, value) {
            (Values::Json(_), _)
            | (Values::Float(_), Scalar::Float(_))
            | (Values::Text(_), Scalar::Text(_))
            | (Values::Binary(_), Scalar::Binary(_))
            | (Values::Bool(_), Scalar::Bool(_)) => true,
            (Values::Float(_), Scalar::Int(value)) => self.kind.is_some() || value.unsigned_abs() <= EXACT_MAX,
            (Values::Float(_), Scalar::UInt(_)) | (Values::Binary(_), Scalar::Text(_)) => self.kind.is_some(),
            (Values::Int(_), Scalar::Int(value)) => match self.kind {
                Some(Kind::Int(bits @ 1..64)) => (value >> (bits - 1)) == 0 || (value >> (bits - 1)) == -1,
                _ => true,
            },
            (Values::Int(_), Scalar::Float(value)) => match self.kind {
                Some(Kind::Timestamp(_)) => value.abs() < MOMENT_MAX,
                Some(Kind::Int(_)) => value.fract() == 0.0 && value.abs() <= EXACT_MAX as f64,
                _ => false,
            },
            (Values::Int(_), Scalar::Text(text)) => {
                matches!(&self.kind, Some(Kind::Timestamp(unit)) if strings::moment(text, *unit).is_some())
            }
            (Values::UInt(_), Scalar::Int(value)) => u64::try_from(value).is_ok_and(|value| self.holds(value)),
            (Values::UInt(_), Scalar::UInt(value)) => self.holds(value),
            (Values::Text(_), _) => self.kind.is_some() && !matches!(value, Scalar::Binary(_)),
            (Values::Category(_), _) => !matches!(value, Scalar::Binary(_)),
            _ => false,
        }
    }

    /// Whether so large a number has enough bits in a `uint` column.
    fn holds(&self, value: u64) -> bool {
        !matches!(self.kind, Some(Kind::UInt(bits @ 1..64)) if value >> bits != 0)
    }

    /// Appends a value that fits.
    fn append(&mut self, value: Scalar<'_>) {
        match (&mut self.values, value) {
            (Values::Bool(values), Scalar::Bool(value)) => values.append(value),
            (Values::Int(values), Scalar::Int(value)) => values.push(value),
            (Values::Int(values), Scalar::Float(value)) => values.push(value.round() as i64),
            (Values::Int(values), Scalar::Text(text)) => values.push(match self.kind {
                Some(Kind::Timestamp(unit)) => strings::moment(text, unit).unwrap_or_default(),
                _ => unreachable!("only a time is read from text"),
            }),
            (Values::UInt(values), Scalar::Int(value)) => values.push(value.cast_unsigned()),
            (Values::UInt(values), Scalar::UInt(value)) => values.push(value),
            (Values::Float(values), Scalar::Float(value)) => values.push(value),
            (Values::Float(values), Scalar::Int(value)) => values.push(value as f64),
            (Values::Float(values), Scalar::UInt(value)) => values.push(value as f64),
            (Values::Text(values) | Values::Binary(values), Scalar::Text(text)) => values.push(text.as_bytes()),
            (Values::Binary(values), Scalar::Binary(bytes)) => values.push(bytes),
            (Values::Category(values), Scalar::Text(text)) => values.push(text),
            (Values::Category(values), other) => values.push(&other.to_json()),
            (Values::Text(values) | Values::Json(values), other) => values.push(other.to_json().as_bytes()),
            (values, value) => unreachable!("{value:?} was said to fit into {values:?}"),
        }
    }

    /// Changes the type so that `value` fits, and all that was there as well.
    fn widen_for(&mut self, value: Scalar<'_>) {
        let rows = self.len();
        self.values = match (&mut self.values, value) {
            (Values::Null, Scalar::Bool(_)) => {
                let mut values = BooleanBufferBuilder::new(rows);
                values.append_n(rows, false);
                Values::Bool(values)
            }
            (Values::Null, Scalar::Int(_)) => Values::Int(vec![0; rows]),
            (Values::Null, Scalar::Float(_)) => Values::Float(vec![0.0; rows]),
            (Values::Null, Scalar::Text(_)) => Values::Text(Strings::empty(rows)),
            (Values::Null, Scalar::Binary(_)) => Values::Binary(Strings::empty(rows)),
            (Values::Null, Scalar::Json(_) | Scalar::UInt(_)) => Values::Json(Strings::empty(rows)),
            (Values::Int(values), Scalar::Float(_)) if !self.is_wide => {
                Values::Float(values.iter().map(|value| *value as f64).collect())
            }
            _ => return self.widen_to_json(),
        };
    }

    /// Turns all values into JSON text.
    pub(crate) fn widen_to_json(&mut self) {
        let rows = self.len();
        let (array, field) = (self.finish(), self.field(""));
        let (mut strings, mut text) = (Strings::default(), Vec::new());
        for row in 0..rows {
            text.clear();
            let is_present = render::is_present(&array, row);
            if is_present {
                render(&field, &array, row, &mut text);
            }
            self.valid.append(is_present);
            strings.push(&text);
        }
        self.values = Values::Json(strings);
    }

    fn append_nulls(&mut self, count: usize) {
        self.valid.append_n(count, false);
        let len = self.valid.len();
        match &mut self.values {
            Values::Null => {}
            Values::Bool(values) => values.append_n(count, false),
            Values::Int(values) => values.resize(len, 0),
            Values::UInt(values) => values.resize(len, 0),
            Values::Float(values) => values.resize(len, 0.0),
            Values::Text(values) | Values::Binary(values) | Values::Json(values) => values.push_empty(count),
            Values::Category(values) => values.push_nulls(count),
            Values::List(list) => list.push_empty(count),
            Values::Struct(record) => record.pad(len),
        }
    }
}

impl Scalar<'_> {
    /// As JSON has it; bytes become base64, and numbers that are none text.
    pub(crate) fn to_json(self) -> String {
        match self {
            Self::Bool(value) => value.to_string(),
            Self::Int(value) => value.to_string(),
            Self::UInt(value) => value.to_string(),
            Self::Json(text) => text.to_owned(),
            Self::Float(_) | Self::Text(_) | Self::Binary(_) => {
                let mut text = Vec::new();
                render::write_scalar(self, &mut text);
                String::from_utf8(text).expect("JSON text is UTF-8")
            }
        }
    }

    fn shown(self) -> String {
        let mut text = self.to_json();
        if text.len() > SHOWN_BYTES_MAX {
            text.truncate((0..=SHOWN_BYTES_MAX).rev().find(|at| text.is_char_boundary(*at)).unwrap_or_default());
            text.push_str("...");
        }
        text
    }
}

/// Whole numbers up to this one are exact in floating point.
const EXACT_MAX: u64 = 1 << 53;

/// Times from numbers with a fraction are rounded, as long as they are times at all.
const MOMENT_MAX: f64 = 9.2e18;

/// Bytes of a value that an error message shows.
const SHOWN_BYTES_MAX: usize = 60;
