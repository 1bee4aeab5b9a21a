//! One value's bytes.

use super::{DecodeError, Reader, put_varint};
use crate::{Real, Value};

// The kind of a value is the low three bits of a varint; the rest is the number or the length, so
// that small numbers and short texts cost one byte besides themselves.
const KIND_NULL: u64 = 0;
const KIND_BLOB: u64 = 1;
const KIND_TEXT: u64 = 2;
const KIND_REAL: u64 = 3;
const KIND_POSITIVE: u64 = 4;
const KIND_NEGATIVE: u64 = 5;
const KIND_WIDE: u64 = 6;

pub(crate) fn put_value(bytes: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Null => put_varint(bytes, KIND_NULL),
        Value::Blob(blob) => {
            put_varint(bytes, (blob.len() as u64) << 3 | KIND_BLOB);
            bytes.extend_from_slice(blob);
        }
        Value::Text(text) => {
            put_varint(bytes, (text.len() as u64) << 3 | KIND_TEXT);
            bytes.extend_from_slice(text);
        }
        Value::Real(real) => {
            put_varint(bytes, KIND_REAL);
            bytes.extend_from_slice(&real.get().to_le_bytes());
        }
        Value::Integer(number) => {
            let magnitude = if *number < 0 { !number } else { *number }.cast_unsigned();
            if magnitude >= 1 << 60 {
                put_varint(bytes, KIND_WIDE);
                bytes.extend_from_slice(&number.to_le_bytes());
            } else if *number < 0 {
                put_varint(bytes, magnitude << 3 | KIND_NEGATIVE);
            } else {
                put_varint(bytes, magnitude << 3 | KIND_POSITIVE);
            }
        }
    }
}

impl Reader<'_> {
    pub(super) fn real(&mut self) -> Result<Value, DecodeError> {
        let number = f64::from_be_bytes(self.array()?);
        self.checked_real(number)
    }

    fn checked_real(&self, number: f64) -> Result<Value, DecodeError> {
        match Real::new(number) {
            Some(real) if real.get().to_bits() == number.to_bits() => Ok(Value::Real(real)),
            _ => Err(self.invalid("a real is neither NaN nor minus zero")),
        }
    }

    pub(crate) fn value(&mut self) -> Result<Value, DecodeError> {
        let head = self.varint()?;
        let number = head >> 3;
        let plain = |value: Value| if number == 0 { Some(value) } else { None };
        let value = match head & 7 {
            KIND_NULL => plain(Value::Null),
            KIND_BLOB => Some(Value::Blob(self.take_u64(number)?.to_vec())),
            KIND_TEXT => Some(Value::Text(self.take_u64(number)?.to_vec())),
            KIND_REAL => {
                let number = f64::from_le_bytes(self.array()?);
                plain(self.checked_real(number)?)
            }
            KIND_POSITIVE => Some(Value::Integer(number.cast_signed())),
            KIND_NEGATIVE => Some(Value::Integer(!number.cast_signed())),
            KIND_WIDE => plain(Value::Integer(i64::from_le_bytes(self.array()?))),
            _ => None,
        };
        value.ok_or(self.invalid("a value has kind 0 to 6"))
    }
}
