//! JSON: jiter reads, and drives serde's visitors of the columns; there is no tree in between.

use jiter::serde::JiterDeserializer;
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
    let mut reader = JiterDeserializer::new(payload);
    let read = RootSeed { record, row, context }.deserialize(&mut reader).and_then(|()| reader.finish());
    match read {
        Ok(()) => Ok(1),
        Err(error) => Err(DecodeError(error.description(payload))),
    }
}
