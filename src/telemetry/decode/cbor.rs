//! CBOR: minicbor reads items, and this drives the visitors that JSON has. Tags are looked through, except those of
//! large numbers; lengths may be indefinite.

use minicbor::{Decoder, data::Type};
use serde::{
    Deserializer,
    de::{DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor, value::Error},
    forward_to_deserialize_any,
};

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
    let mut reader = Decoder::new(payload);
    let root = RootSeed { record, row, context };
    root.deserialize(Item { reader: &mut reader, depth_left: READER_DEPTH_MAX }).map_err(DecodeError::new)?;
    match payload.len() - reader.position() {
        0 => Ok(1),
        rest => Err(DecodeError(format!("{rest} bytes follow the value"))),
    }
}

/// The next data item.
struct Item<'a, 'de> {
    reader: &'a mut Decoder<'de>,
    depth_left: usize,
}

/// The items of an array, or the pairs of a map.
struct Items<'a, 'de> {
    reader: &'a mut Decoder<'de>,
    /// `None`: until the break.
    left: Option<u64>,
    depth_left: usize,
}

impl<'de> Item<'_, 'de> {
    fn tagged<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let start = self.reader.position();
        let tag = self.reader.tag().map_err(Error::custom)?.as_u64();
        if tag == UNSIGNED_BIGNUM || tag == NEGATIVE_BIGNUM {
            let content = self.reader.position();
            self.reader.set_position(start);
            if let Ok(value) = self.reader.i128() {
                return visitor.visit_i128(value);
            }
            self.reader.set_position(content);
        }
        while self.reader.datatype().map_err(Error::custom)? == Type::Tag {
            self.reader.tag().map_err(Error::custom)?;
        }
        self.deserialize_any(visitor)
    }

    fn nested<V: Visitor<'de>>(self, is_map: bool, visitor: V) -> Result<V::Value, Error> {
        let depth_left = self.depth_left.checked_sub(1).ok_or_else(|| Error::custom("it is nested too deep"))?;
        let left = if is_map { self.reader.map() } else { self.reader.array() }.map_err(Error::custom)?;
        let items = Items { reader: self.reader, left, depth_left };
        if is_map { visitor.visit_map(items) } else { visitor.visit_seq(items) }
    }
}

impl<'de> Deserializer<'de> for Item<'_, 'de> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let reader = &mut *self.reader;
        match reader.datatype().map_err(Error::custom)? {
            Type::Bool => visitor.visit_bool(reader.bool().map_err(Error::custom)?),
            Type::Null => reader.null().map_err(Error::custom).and_then(|()| visitor.visit_unit()),
            Type::Undefined => reader.undefined().map_err(Error::custom).and_then(|()| visitor.visit_unit()),
            Type::U8 | Type::U16 | Type::U32 | Type::U64 => visitor.visit_u64(reader.u64().map_err(Error::custom)?),
            Type::I8 | Type::I16 | Type::I32 | Type::I64 => visitor.visit_i64(reader.i64().map_err(Error::custom)?),
            Type::Int => visitor.visit_i128(reader.int().map_err(Error::custom)?.into()),
            Type::F16 => visitor.visit_f64(f64::from(reader.f16().map_err(Error::custom)?)),
            Type::F32 => visitor.visit_f64(f64::from(reader.f32().map_err(Error::custom)?)),
            Type::F64 => visitor.visit_f64(reader.f64().map_err(Error::custom)?),
            Type::Simple => visitor.visit_u64(u64::from(reader.simple().map_err(Error::custom)?)),
            Type::Bytes => visitor.visit_borrowed_bytes(reader.bytes().map_err(Error::custom)?),
            Type::BytesIndef => {
                let parts: Result<Vec<&[u8]>, _> = reader.bytes_iter().map_err(Error::custom)?.collect();
                visitor.visit_bytes(&parts.map_err(Error::custom)?.concat())
            }
            Type::String => visitor.visit_borrowed_str(reader.str().map_err(Error::custom)?),
            Type::StringIndef => {
                let parts: Result<String, _> = reader.str_iter().map_err(Error::custom)?.collect();
                visitor.visit_str(&parts.map_err(Error::custom)?)
            }
            Type::Array | Type::ArrayIndef => self.nested(false, visitor),
            Type::Map | Type::MapIndef => self.nested(true, visitor),
            Type::Tag => self.tagged(visitor),
            Type::Break => Err(Error::custom("a break stands where a value should")),
            Type::Unknown(byte) => Err(Error::custom(format!("{byte:#04x} begins no value"))),
        }
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

impl Items<'_, '_> {
    /// Whether there is another one.
    fn advance(&mut self) -> Result<bool, Error> {
        match &mut self.left {
            Some(0) => Ok(false),
            Some(left) => {
                *left -= 1;
                Ok(true)
            }
            None if self.reader.datatype().map_err(Error::custom)? == Type::Break => {
                self.reader.set_position(self.reader.position() + 1);
                self.left = Some(0);
                Ok(false)
            }
            None => Ok(true),
        }
    }

    fn read<'de, S: DeserializeSeed<'de>>(
        reader: &mut Decoder<'de>,
        depth_left: usize,
        seed: S,
    ) -> Result<S::Value, Error> {
        seed.deserialize(Item { reader, depth_left })
    }
}

impl<'de> SeqAccess<'de> for Items<'_, 'de> {
    type Error = Error;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Error> {
        if !self.advance()? {
            return Ok(None);
        }
        Self::read(self.reader, self.depth_left, seed).map(Some)
    }
}

impl<'de> MapAccess<'de> for Items<'_, 'de> {
    type Error = Error;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Error> {
        if !self.advance()? {
            return Ok(None);
        }
        Self::read(self.reader, self.depth_left, seed).map(Some)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Error> {
        Self::read(self.reader, self.depth_left, seed)
    }
}

const UNSIGNED_BIGNUM: u64 = 2;
const NEGATIVE_BIGNUM: u64 = 3;

/// Above what columns are nested, for values that are skipped.
const READER_DEPTH_MAX: usize = 200;
