//! A primary key in one blob, as the clocks name rows by it.

use super::{DecodeError, Reader};
use crate::Value;

/// Packs a primary key into one blob, byte for byte as cr-sqlite's `crsql_pack_columns` does: a
/// count, then for each value a byte `(length_bytes << 3) | type` and the value, big-endian.
///
/// # Panics
///
/// With more than 255 values; a table with such a key is refused when it is tracked.
pub fn pack_key(key: &[Value]) -> Vec<u8> {
    let count = u8::try_from(key.len()).expect("a tracked key has at most 255 columns");
    let mut bytes = vec![count];
    for value in key {
        match value {
            Value::Null => bytes.push(5),
            Value::Integer(number) => put_tagged(&mut bytes, 1, number.cast_unsigned()),
            Value::Real(real) => {
                bytes.push(2);
                bytes.extend_from_slice(&real.get().to_be_bytes());
            }
            Value::Text(text) => {
                put_tagged(&mut bytes, 3, text.len() as u64);
                bytes.extend_from_slice(text);
            }
            Value::Blob(blob) => {
                put_tagged(&mut bytes, 4, blob.len() as u64);
                bytes.extend_from_slice(blob);
            }
        }
    }
    bytes
}

fn put_tagged(bytes: &mut Vec<u8>, kind: u8, number: u64) {
    let length = 8 - number.leading_zeros() as usize / 8;
    bytes.push(u8::try_from(length).expect("at most 8") << 3 | kind);
    bytes.extend_from_slice(&number.to_be_bytes()[8 - length..]);
}

/// Reads a key that [`pack_key`] packed.
///
/// # Errors
///
/// [`DecodeError`] says what is wrong.
pub fn unpack_key(bytes: &[u8]) -> Result<Vec<Value>, DecodeError> {
    let mut reader = Reader::over(bytes);
    let count = reader.byte()?;
    let mut key = Vec::with_capacity(usize::from(count));
    for _ in 0..count {
        let tag = reader.byte()?;
        let length = usize::from(tag >> 3);
        if length > 8 {
            return Err(reader.invalid("a number has at most eight bytes"));
        }
        let mut number = || -> Result<u64, DecodeError> {
            let mut wide = [0; 8];
            wide[8 - length..].copy_from_slice(reader.take(length)?);
            Ok(u64::from_be_bytes(wide))
        };
        let value = match tag & 7 {
            1 => Value::Integer(number()?.cast_signed()),
            2 => reader.real()?,
            3 => {
                let length = number()?;
                Value::Text(reader.take_u64(length)?.to_vec())
            }
            4 => {
                let length = number()?;
                Value::Blob(reader.take_u64(length)?.to_vec())
            }
            5 => Value::Null,
            _ => return Err(reader.invalid("a packed value has type 1 to 5")),
        };
        key.push(value);
    }
    reader.end()?;
    Ok(key)
}
