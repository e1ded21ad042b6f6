//! MessagePack, by `rmp-serde` and the visitors that JSON has.

use rmp_serde::Deserializer;
use serde::de::DeserializeSeed;

use crate::telemetry::{
    DecodeError,
    column::{Context, Record, RootSeed},
};

pub(super) fn decode(
    payload: &[u8],
    record: &mut Record,
    row: usize,
    context: &mut Context,
) -> Result<usize, DecodeError> {
    let mut rest = payload;
    let mut reader = Deserializer::new(&mut rest);
    reader.set_max_depth(READER_DEPTH_MAX);
    RootSeed { record, row, context }.deserialize(&mut reader).map_err(DecodeError::new)?;
    if rest.is_empty() { Ok(1) } else { Err(DecodeError(format!("{} bytes follow the value", rest.len()))) }
}

/// Above what columns are nested, for values that are skipped.
const READER_DEPTH_MAX: usize = 200;
