//! Serde's way into columns: a reader of any format that drives these writes into columns without a tree in between.

use std::fmt;

use serde::de::{self, DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::{Column, Context, Key, List, Record, Scalar, Values, record::TOO_MANY_VALUES, render::write_json_text};
use crate::telemetry::kind::Kind;

/// Appends the value that comes to a column.
pub(crate) struct Cell<'a> {
    pub(crate) column: &'a mut Column,
    pub(crate) context: &'a mut Context,
}

/// Fills one row of a record from an object. Anything else becomes the field `value`.
pub(crate) struct RootSeed<'a> {
    pub(crate) record: &'a mut Record,
    pub(crate) row: usize,
    pub(crate) context: &'a mut Context,
}

/// Finds the column of a name without keeping the name.
pub(super) struct KeySeed<'a> {
    pub(super) record: &'a Record,
    pub(super) expected: usize,
}

/// Turns the value that comes into JSON text.
pub(crate) struct Transcode<'a> {
    pub(crate) context: &'a mut Context,
}

/// What all visitors of scalars do alike: hand a [`Scalar`] on.
macro_rules! scalars {
    () => {
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a value")
        }

        #[inline]
        fn visit_bool<E: de::Error>(self, value: bool) -> Result<Self::Value, E> {
            self.scalar(Scalar::Bool(value))
        }

        #[inline]
        fn visit_i64<E: de::Error>(self, value: i64) -> Result<Self::Value, E> {
            self.scalar(Scalar::Int(value))
        }

        #[inline]
        fn visit_u64<E: de::Error>(self, value: u64) -> Result<Self::Value, E> {
            self.scalar(i64::try_from(value).map_or(Scalar::UInt(value), Scalar::Int))
        }

        fn visit_i128<E: de::Error>(self, value: i128) -> Result<Self::Value, E> {
            match (i64::try_from(value), u64::try_from(value)) {
                (Ok(value), _) => self.visit_i64(value),
                (_, Ok(value)) => self.visit_u64(value),
                _ => self.scalar(Scalar::Json(&value.to_string())),
            }
        }

        fn visit_u128<E: de::Error>(self, value: u128) -> Result<Self::Value, E> {
            match u64::try_from(value) {
                Ok(value) => self.visit_u64(value),
                Err(_) => self.scalar(Scalar::Json(&value.to_string())),
            }
        }

        #[inline]
        fn visit_f64<E: de::Error>(self, value: f64) -> Result<Self::Value, E> {
            self.scalar(Scalar::Float(value))
        }

        #[inline]
        fn visit_str<E: de::Error>(self, value: &str) -> Result<Self::Value, E> {
            self.scalar(Scalar::Text(value))
        }

        fn visit_bytes<E: de::Error>(self, value: &[u8]) -> Result<Self::Value, E> {
            self.scalar(Scalar::Binary(value))
        }

        fn visit_none<E: de::Error>(self) -> Result<Self::Value, E> {
            self.visit_unit()
        }

        fn visit_some<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
            from.deserialize_any(self)
        }

        fn visit_newtype_struct<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
            from.deserialize_any(self)
        }
    };
}

impl<'de> DeserializeSeed<'de> for Cell<'_> {
    type Value = ();

    #[inline]
    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_any(self)
    }
}

impl Cell<'_> {
    #[inline]
    #[allow(clippy::unnecessary_wraps)] // the shape that the macro asks for
    fn scalar<E>(self, value: Scalar<'_>) -> Result<(), E> {
        self.column.push(value, self.context);
        Ok(())
    }

    /// A list or map that has no place here: its JSON text is the value, or a misfit.
    fn push_text(self, text: String) {
        if !matches!(self.column.values, Values::Json(_) | Values::Text(_)) && self.context.is_frozen {
            self.context.misfits.push((String::new(), text));
            return self.column.push_null();
        }
        if self.column.kind.is_none() && !matches!(self.column.values, Values::Json(_)) {
            self.column.widen_to_json();
        }
        self.column.push(Scalar::Json(&text), self.context);
    }

    /// Whether the column can only refuse a list or a map.
    fn refuses(&self) -> bool {
        matches!(self.column.kind, Some(ref kind) if !matches!(kind, Kind::Json | Kind::List(_) | Kind::Struct(_)))
    }

    fn refuse(self, found: &str) {
        let kind = self.column.kind.as_ref().map(ToString::to_string).unwrap_or_default();
        self.context.fault.get_or_insert_with(|| format!("{found} is no {kind}"));
        self.column.push_null();
    }
}

impl<'de> Visitor<'de> for Cell<'_> {
    type Value = ();

    scalars!();

    fn visit_unit<E: de::Error>(self) -> Result<(), E> {
        if !self.context.spend(self.column.leaves() - 1) {
            return Err(E::custom(TOO_MANY_VALUES));
        }
        self.column.push_null();
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let is_open = self.column.kind.is_none() && !self.context.is_frozen;
        if is_open && matches!(self.column.values, Values::Null) {
            let mut list = List::new(Column::learning(0));
            list.push_empty(self.column.len());
            self.column.values = Values::List(Box::new(list));
        }
        let Values::List(list) = &mut self.column.values else {
            if self.refuses() || matches!(self.column.values, Values::Struct(_)) && self.column.kind.is_some() {
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                self.refuse("a list");
                return Ok(());
            }
            let text = Transcode { context: &mut *self.context }.visit_seq(seq)?;
            self.push_text(text);
            return Ok(());
        };
        nest(self.context, |context| {
            let mut at = 0;
            loop {
                let named = context.misfits.len();
                let cell = Cell { column: list.items_mut(), context };
                if seq.next_element_seed(cell)?.is_none() {
                    break;
                }
                if !context.spend(1) {
                    return Err(A::Error::custom(TOO_MANY_VALUES));
                }
                if context.misfits.len() > named {
                    context.name_misfits(named, &format!("[{at}]"));
                }
                at += 1;
            }
            list.end_row();
            Ok(())
        })?;
        self.column.valid.append(true);
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let row = self.column.len();
        if matches!(self.column.values, Values::Null) && self.column.kind.is_none() && !self.context.is_frozen {
            self.column.values = Values::Struct(Box::default());
        }
        let Values::Struct(record) = &mut self.column.values else {
            if self.refuses() || matches!(self.column.values, Values::List(_)) && self.column.kind.is_some() {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                self.refuse("an object");
                return Ok(());
            }
            let text = Transcode { context: &mut *self.context }.visit_map(map)?;
            self.push_text(text);
            return Ok(());
        };
        nest(self.context, |context| record.read(row, &mut map, context))?;
        self.column.valid.append(true);
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for RootSeed<'_> {
    type Value = ();

    #[inline]
    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_any(self)
    }
}

impl RootSeed<'_> {
    fn scalar<E: de::Error>(self, value: Scalar<'_>) -> Result<(), E> {
        self.record.push(VALUE, self.row, Some(value), self.context);
        self.end_row()
    }

    fn end_row<E: de::Error>(self) -> Result<(), E> {
        if self.record.end_row(self.row, self.context) { Ok(()) } else { Err(E::custom(TOO_MANY_VALUES)) }
    }
}

impl<'de> Visitor<'de> for RootSeed<'_> {
    type Value = ();

    scalars!();

    fn visit_unit<E: de::Error>(self) -> Result<(), E> {
        self.record.push(VALUE, self.row, None, self.context);
        self.end_row()
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<(), A::Error> {
        if let Some(column) = self.record.column(VALUE, self.row, self.context) {
            Cell { column, context: self.context }.visit_seq(seq)?;
        } else {
            let text = Transcode { context: self.context }.visit_seq(seq)?;
            self.context.misfits.push((VALUE.to_owned(), text));
        }
        self.end_row()
    }

    #[inline]
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        self.record.read(self.row, &mut map, self.context)
    }
}

impl<'de> DeserializeSeed<'de> for KeySeed<'_> {
    type Value = Key;

    #[inline]
    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Key, D::Error> {
        from.deserialize_any(self)
    }
}

impl KeySeed<'_> {
    /// CBOR and MessagePack have names that are no text.
    #[inline]
    #[allow(clippy::unnecessary_wraps)] // the shape that the macro asks for
    fn scalar<E>(self, value: Scalar<'_>) -> Result<Key, E> {
        Ok(match value {
            Scalar::Text(name) => self.record.look_up(name, self.expected),
            other => self.record.look_up(&other.to_json(), self.expected),
        })
    }
}

impl<'de> Visitor<'de> for KeySeed<'_> {
    type Value = Key;

    scalars!();

    fn visit_unit<E: de::Error>(self) -> Result<Key, E> {
        self.scalar(Scalar::Text("null"))
    }
}

impl<'de> DeserializeSeed<'de> for Transcode<'_> {
    type Value = String;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<String, D::Error> {
        from.deserialize_any(self)
    }
}

impl Transcode<'_> {
    #[allow(clippy::unnecessary_wraps, clippy::unused_self)] // the shape that the macro asks for
    fn scalar<E>(self, value: Scalar<'_>) -> Result<String, E> {
        Ok(value.to_json())
    }
}

impl<'de> Visitor<'de> for Transcode<'_> {
    type Value = String;

    scalars!();

    fn visit_unit<E: de::Error>(self) -> Result<String, E> {
        Ok("null".to_owned())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<String, A::Error> {
        nest(self.context, |context| {
            let mut text = String::from("[");
            while let Some(item) = seq.next_element_seed(Transcode { context })? {
                if !context.spend(1) {
                    return Err(A::Error::custom(TOO_MANY_VALUES));
                }
                text.push_str(if text.len() > 1 { "," } else { "" });
                text.push_str(&item);
            }
            text.push(']');
            Ok(text)
        })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<String, A::Error> {
        nest(self.context, |context| {
            let mut text = String::from("{");
            while let Some(name) = map.next_key_seed(NameSeed)? {
                if !context.spend(1) {
                    return Err(A::Error::custom(TOO_MANY_VALUES));
                }
                let mut quoted = Vec::new();
                write_json_text(&name, &mut quoted);
                text.push_str(if text.len() > 1 { "," } else { "" });
                text.push_str(&String::from_utf8_lossy(&quoted));
                text.push(':');
                text.push_str(&map.next_value_seed(Transcode { context })?);
            }
            text.push('}');
            Ok(text)
        })
    }
}

/// A name as text, whatever it is.
struct NameSeed;

impl<'de> DeserializeSeed<'de> for NameSeed {
    type Value = String;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<String, D::Error> {
        from.deserialize_any(self)
    }
}

impl NameSeed {
    #[allow(clippy::unnecessary_wraps, clippy::unused_self)] // the shape that the macro asks for
    fn scalar<E>(self, value: Scalar<'_>) -> Result<String, E> {
        Ok(match value {
            Scalar::Text(name) => name.to_owned(),
            other => other.to_json(),
        })
    }
}

impl<'de> Visitor<'de> for NameSeed {
    type Value = String;

    scalars!();

    fn visit_unit<E: de::Error>(self) -> Result<String, E> {
        Ok("null".to_owned())
    }
}

/// Works one level deeper.
fn nest<T, E: de::Error>(context: &mut Context, body: impl FnOnce(&mut Context) -> Result<T, E>) -> Result<T, E> {
    if !context.enter() {
        return Err(E::custom("it is nested deeper than allowed"));
    }
    let result = body(context);
    context.leave();
    result
}

/// The field of payloads that are no objects.
pub(crate) const VALUE: &str = "value";
