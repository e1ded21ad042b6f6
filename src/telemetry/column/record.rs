//! Named columns that are filled together: the fields of a payload, or of an object in it.

use std::collections::HashMap;

use foldhash::fast::RandomState;
use serde::de::{Error as _, IgnoredAny, MapAccess};

use super::{
    Column, Context, Scalar,
    seed::{Cell, KeySeed, Transcode},
};
use crate::telemetry::kind::Kind;

/// Columns by name, in the order in which the names were met.
#[derive(Debug, Default)]
pub(crate) struct Record {
    names: Vec<Box<str>>,
    columns: Vec<Column>,
    numbers: HashMap<Box<str>, usize, RandomState>,
    /// The fields were given; others are left out.
    is_closed: bool,
}

/// What a field's name says about it.
#[derive(Debug)]
pub(crate) enum Key {
    /// A column that is there.
    Known(usize),
    /// None is there yet.
    New(Box<str>),
    /// It was not asked for.
    Ignored,
}

impl Record {
    /// The given fields and no others.
    pub(crate) fn closed(fields: &[(String, Kind)]) -> Self {
        let mut record = Self::default();
        for (name, kind) in fields {
            record.insert(name, Column::new(Some(kind.clone())));
        }
        record.is_closed = true;
        record
    }

    pub(crate) fn names(&self) -> &[Box<str>] {
        &self.names
    }

    pub(crate) fn columns(&self) -> &[Column] {
        &self.columns
    }

    pub(crate) fn columns_mut(&mut self) -> &mut [Column] {
        &mut self.columns
    }

    pub(super) fn leaves(&self) -> usize {
        self.columns.iter().map(Column::leaves).sum()
    }

    /// Fills one row from a map.
    pub(crate) fn read<'de, A: MapAccess<'de>>(
        &mut self,
        row: usize,
        map: &mut A,
        context: &mut Context,
    ) -> Result<(), A::Error> {
        let mut expected = 0;
        while let Some(key) = map.next_key_seed(KeySeed { record: self, expected })? {
            match key {
                Key::Known(at) => {
                    expected = at + 1;
                    let misfits = context.misfits.len();
                    let column = &mut self.columns[at];
                    if column.len() > row {
                        column.truncate(row); // a name that occurs twice: the last one counts, as in most readers
                    }
                    map.next_value_seed(Cell { column, context })?;
                    if context.misfits.len() > misfits {
                        context.name_misfits(misfits, &self.names[at]);
                    }
                }
                Key::New(name) => {
                    if let Some(column) = self.make(&name, None, row, context) {
                        let misfits = context.misfits.len();
                        map.next_value_seed(Cell { column, context })?;
                        context.name_misfits(misfits, &name);
                        expected = self.columns.len();
                    } else {
                        let text = map.next_value_seed(Transcode { context })?;
                        context.misfits.push((name.into(), text));
                    }
                }
                Key::Ignored => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        if self.end_row(row, context) { Ok(()) } else { Err(A::Error::custom(TOO_MANY_VALUES)) }
    }

    /// Appends a value to the column of that name.
    pub(crate) fn push(&mut self, name: &str, row: usize, value: Option<Scalar<'_>>, context: &mut Context) {
        self.push_to(name, None, row, value, context);
    }

    /// The same, to a column that has this type if it has to be made.
    pub(crate) fn push_as(
        &mut self,
        name: &str,
        row: usize,
        kind: &Kind,
        value: Option<Scalar<'_>>,
        context: &mut Context,
    ) {
        self.push_to(name, Some(kind), row, value, context);
    }

    fn push_to(
        &mut self,
        name: &str,
        kind: Option<&Kind>,
        row: usize,
        value: Option<Scalar<'_>>,
        context: &mut Context,
    ) {
        let misfits = context.misfits.len();
        let column = match self.look_up(name, usize::MAX) {
            Key::Known(at) => &mut self.columns[at],
            Key::Ignored => return,
            Key::New(_) => {
                let Some(column) = self.make(name, kind, row, context) else {
                    let text = value.map_or_else(|| "null".to_owned(), Scalar::to_json);
                    return context.misfits.push((name.to_owned(), text));
                };
                column
            }
        };
        column.truncate(row);
        match value {
            Some(value) => column.push(value, context),
            None => column.push_null(),
        }
        context.name_misfits(misfits, name);
    }

    /// The column of that name, to be filled by hand; `None` if there is none and none may be made.
    pub(crate) fn column(&mut self, name: &str, row: usize, context: &mut Context) -> Option<&mut Column> {
        match self.look_up(name, usize::MAX) {
            Key::Known(at) => {
                self.columns[at].truncate(row);
                self.columns.get_mut(at)
            }
            Key::Ignored => None,
            Key::New(_) => self.make(name, None, row, context),
        }
    }

    /// Whether there is a column of that name.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.numbers.contains_key(name)
    }

    /// Whether a name already has its value in this row.
    pub(crate) fn is_set(&self, name: &str, row: usize) -> bool {
        self.numbers.get(name).is_some_and(|at| self.columns[*at].len() > row)
    }

    /// Gives all columns that have no value in this row a null; whether that was within the bounds.
    #[inline]
    pub(crate) fn end_row(&mut self, row: usize, context: &mut Context) -> bool {
        for column in &mut self.columns {
            // A null in place of an object is a null in each of its columns.
            let cost = if column.len() > row { 1 } else { column.leaves() };
            if !context.spend(cost) {
                return false;
            }
            column.pad(row + 1);
        }
        true
    }

    #[inline]
    pub(super) fn pad(&mut self, len: usize) {
        for column in &mut self.columns {
            column.pad(len);
        }
    }

    pub(crate) fn truncate(&mut self, len: usize) {
        for column in &mut self.columns {
            column.truncate(len);
        }
    }

    /// Finds a name; `expected` is where it is if fields come in the order of the row before.
    #[inline]
    pub(super) fn look_up(&self, name: &str, expected: usize) -> Key {
        if self.names.get(expected).is_some_and(|known| **known == *name) {
            return Key::Known(expected);
        }
        match self.numbers.get(name) {
            Some(at) => Key::Known(*at),
            None if self.is_closed => Key::Ignored,
            None => Key::New(name.into()),
        }
    }

    /// A new column, null up to this row, unless there are too many.
    fn make(&mut self, name: &str, kind: Option<&Kind>, row: usize, context: &mut Context) -> Option<&mut Column> {
        if context.is_frozen || context.columns_left == 0 || self.is_closed {
            return None;
        }
        context.columns_left -= 1;
        let mut column = Column::new(kind.cloned());
        column.pad(row);
        self.insert(name, column);
        self.columns.last_mut()
    }

    fn insert(&mut self, name: &str, column: Column) {
        self.numbers.insert(name.into(), self.columns.len());
        self.names.push(name.into());
        self.columns.push(column);
    }
}

pub(super) const TOO_MANY_VALUES: &str = "it holds more values than one message may";
