//! The items of a list column.

use super::Column;

/// Lists: the items of all rows in one column, and where each row's end.
#[derive(Debug)]
pub(crate) struct List {
    items: Column,
    pub(super) ends: Vec<i32>,
}

impl List {
    pub(crate) fn new(items: Column) -> Self {
        Self { items, ends: Vec::new() }
    }

    pub(crate) fn items(&self) -> &Column {
        &self.items
    }

    pub(crate) fn items_mut(&mut self) -> &mut Column {
        &mut self.items
    }

    /// What came into `items` since the last row is one row.
    pub(crate) fn end_row(&mut self) {
        self.ends.push(i32::try_from(self.items.len()).expect("a batch is finished before 2^31 values"));
    }

    pub(super) fn push_empty(&mut self, count: usize) {
        let end = self.ends.last().copied().unwrap_or_default();
        self.ends.resize(self.ends.len() + count, end);
    }

    pub(super) fn truncate(&mut self, len: usize) {
        self.ends.truncate(len);
        self.items.truncate(self.ends.last().map_or(0, |end| end.cast_unsigned() as usize));
    }
}
