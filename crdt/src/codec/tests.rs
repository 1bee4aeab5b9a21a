//! Round trips, and bytes that are not what they claim to be.

use proptest::prelude::*;

use super::*;
use crate::{Part, Parts, Real, Rename, Seen};

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<i64>().prop_map(Value::Integer),
        (0i64..200).prop_map(Value::Integer),
        any::<f64>().prop_filter_map("NaN", |number| Real::new(number).map(Value::Real)),
        "\\PC{0,12}".prop_map(|text| Value::text(&text)),
        prop::collection::vec(any::<u8>(), 0..12).prop_map(Value::Blob),
        prop::collection::vec(any::<u8>(), 0..12).prop_map(Value::Text),
    ]
}

fn key_value() -> impl Strategy<Value = Value> {
    value().prop_filter("a key has no NULL", |value| *value != Value::Null)
}

fn stamp() -> impl Strategy<Value = Stamp> {
    (1u64..1 << 53, 0u8..4).prop_map(|(bits, site)| Stamp {
        version: Hlc::from_bits(bits).expect("53 bits"),
        site: SiteId([site; 16]),
    })
}

fn vector() -> impl Strategy<Value = VersionVector> {
    prop::collection::vec(stamp(), 0..4)
        .prop_map(|stamps| stamps.into_iter().map(|s| (s.site, s.version)).collect())
}

fn group() -> impl Strategy<Value = Group> {
    let cells = (
        0u64..4,
        stamp(),
        prop::sample::subsequence(vec![0usize, 1, 2], 0..=3),
        0u8..2,
        any::<bool>(),
    )
        .prop_flat_map(|(life, stamp, columns, born, refers)| {
            let row = (key_value(), prop::collection::vec(value(), columns.len()));
            prop::collection::vec(row, 1..4).prop_map(move |rows| Group {
                causal_length: CausalLength::new(life * 2 + 1).expect("small"),
                kind: GroupKind::Cells,
                stamp,
                born: SiteId([born; 16]),
                columns: columns.clone(),
                parents: vec![SiteId([7; 16]); if refers { 1 + columns.len() } else { 0 }],
                values: rows
                    .into_iter()
                    .flat_map(|(key, cells)| [vec![key], cells].concat())
                    .collect(),
            })
        });
    let lives = (1u64..9, stamp(), prop::collection::vec(key_value(), 1..4)).prop_map(
        |(life, stamp, values)| Group {
            causal_length: CausalLength::new(life).expect("small"),
            kind: GroupKind::Life,
            stamp,
            born: SiteId::default(),
            columns: vec![],
            parents: vec![],
            values,
        },
    );
    let delta = (key_value(), prop::collection::vec(any::<u8>(), 0..9));
    let deltas = (stamp(), prop::collection::vec(delta, 1..4)).prop_map(|(stamp, rows)| Group {
        causal_length: CausalLength::FIRST,
        kind: GroupKind::Deltas,
        stamp,
        born: SiteId::default(),
        columns: vec![1],
        parents: vec![],
        values: rows
            .into_iter()
            .flat_map(|(key, delta)| [key, Value::Blob(delta)])
            .collect(),
    });
    prop_oneof![cells, lives, deltas]
}

fn changeset() -> impl Strategy<Value = Changeset> {
    let table = ("[a-z]{1,8}", prop::collection::vec(group(), 0..4)).prop_map(|(name, groups)| {
        TableChanges {
            name,
            key_columns: vec!["id".into()],
            columns: vec!["a".into(), "b c".into(), "ü".into()],
            groups,
        }
    });
    let schema = ("[a-z]{1,8}", stamp()).prop_map(|(name, stamp)| {
        let statements = vec![format!("CREATE TABLE {name}(id INTEGER PRIMARY KEY)")];
        TableSchema {
            name,
            stamp,
            origin: SiteId([stamp.site.0[0] / 2; 16]),
            options: "{}".into(),
            statements,
        }
    });
    let schemas = prop::collection::vec(schema, 0..2);
    let rename = ("[a-z]{0,8}", "[a-z]{1,8}", "[ü ]{1,8}", stamp());
    let rename = rename.prop_map(|(table, former, name, stamp)| Rename {
        table,
        former,
        name,
        stamp,
    });
    let renames = prop::collection::vec(rename, 0..3);
    (
        [vector(), vector(), vector(), vector()],
        schemas,
        renames,
        prop::collection::vec(table, 0..3),
    )
        .prop_map(
            |([since, until, collected, seen], schemas, renames, tables)| {
                let mut settled = seen;
                settled.join(&collected);
                let filled = [("t", since.clone()), ("u", until.clone())];
                let filled = filled.into_iter().filter(|(_, vector)| !vector.is_empty());
                let filled = filled.map(|(name, vector)| (Part::whole(name), vector));
                let filled = filled.collect();
                let column = Part {
                    column: "c".to_owned(),
                    ..Part::whole("v")
                };
                let lacking = Parts::from([(column, until.clone())]);
                Changeset {
                    since,
                    until,
                    collected,
                    settled,
                    filled,
                    lacking,
                    schemas,
                    renames,
                    tables,
                }
            },
        )
}

/// Gives changed bytes a valid checksum, so that the rules behind it are reached.
fn sealed_again(body: &[u8]) -> Vec<u8> {
    let mut bytes = body.to_vec();
    bytes.extend_from_slice(&blake3::hash(body).as_bytes()[..CHECKSUM_BYTES]);
    bytes
}

proptest! {
    #[test]
    fn a_changeset_survives_its_bytes(changeset in changeset()) {
        prop_assert_eq!(Changeset::decode(&changeset.encode()), Ok(changeset));
    }

    #[test]
    fn a_vector_survives_its_bytes(vector in vector()) {
        prop_assert_eq!(VersionVector::decode(&vector.encode()), Ok(vector));
    }

    #[test]
    fn what_is_seen_survives_its_bytes(vector in vector(), names in prop::collection::btree_map("[a-z]{1,3}", ("[a-z]{0,2}", vector()), 0..3)) {
        let gaps = names.into_iter();
        let gaps = gaps.map(|(table, (column, vector))| (Part { table, column }, vector)).collect();
        let seen = Seen { vector, gaps };
        prop_assert_eq!(Seen::decode(&seen.encode()), Ok(seen.clone()));
        prop_assert_eq!(Seen::decode(&seen.vector.encode()), Ok(seen.vector.into()));
    }

    #[test]
    fn a_key_survives_packing(key in prop::collection::vec(value(), 0..5)) {
        prop_assert_eq!(unpack_key(&pack_key(&key)), Ok(key));
    }

    #[test]
    fn any_key_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
        let _ = unpack_key(&bytes);
    }

    #[test]
    fn every_truncation_and_every_flipped_bit_is_refused(
        changeset in changeset(), cut in any::<prop::sample::Index>(), bit in 0u8..8,
    ) {
        let bytes = changeset.encode();
        let at = cut.index(bytes.len());
        prop_assert!(Changeset::decode(&bytes[..at]).is_err());
        let mut flipped = bytes;
        flipped[at] ^= 1 << bit;
        prop_assert!(Changeset::decode(&flipped).is_err());
    }

    #[test]
    fn what_is_read_from_changed_bytes_has_no_second_form(
        changeset in changeset(), at in any::<prop::sample::Index>(), byte in any::<u8>(),
    ) {
        let bytes = changeset.encode();
        let mut body = bytes[..bytes.len() - CHECKSUM_BYTES].to_vec();
        let index = at.index(body.len());
        body[index] = byte;
        if let Ok(read) = Changeset::decode(&sealed_again(&body)) {
            prop_assert_eq!(Changeset::decode(&read.encode()), Ok(read));
        }
    }
}

#[test]
fn packed_keys_are_those_of_cr_sqlite() {
    let real = |number| Value::Real(Real::new(number).expect("the number is not NaN"));
    let blob = |bytes: &[u8]| Value::Blob(bytes.to_vec());
    let hex = |key: &[Value]| -> String {
        pack_key(key)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect()
    };
    assert_eq!(hex(&[Value::Integer(0)]), "0101");
    assert_eq!(hex(&[Value::Integer(1)]), "010901");
    assert_eq!(hex(&[Value::Integer(128)]), "010980");
    assert_eq!(hex(&[Value::Integer(256)]), "01110100");
    assert_eq!(hex(&[Value::Integer(-1)]), "0141ffffffffffffffff");
    assert_eq!(hex(&[Value::Integer(65536)]), "0119010000");
    assert_eq!(hex(&[real(1.5)]), "01023ff8000000000000");
    assert_eq!(hex(&[Value::text("")]), "0103");
    assert_eq!(hex(&[Value::text("a")]), "010b0161");
    assert_eq!(hex(&[blob(&[0, 0xff])]), "010c0200ff");
    let mixed = [
        Value::Integer(1),
        Value::text("a"),
        blob(&[0]),
        Value::Null,
        real(2.0),
    ];
    assert_eq!(hex(&mixed), "0509010b01610c010005024000000000000000");
}

#[test]
fn errors_name_what_is_wrong() {
    let bytes = Changeset::default().encode();
    assert_eq!(Changeset::decode(b"hello"), Err(DecodeError::Foreign));
    assert_eq!(Changeset::decode(b""), Err(DecodeError::Foreign));
    let mut newer = bytes.clone();
    newer[4] = 2;
    assert_eq!(
        Changeset::decode(&newer),
        Err(DecodeError::Newer { found: 2, known: 1 })
    );
    let mut damaged = bytes.clone();
    damaged[6] ^= 1;
    assert_eq!(Changeset::decode(&damaged), Err(DecodeError::Damaged));
    assert!(matches!(
        Changeset::decode(&bytes[..7]),
        Err(DecodeError::Truncated { .. })
    ));
    // 2^60 tables claimed in a few bytes: refused before anything is reserved.
    let mut lie = bytes[..bytes.len() - CHECKSUM_BYTES].to_vec();
    lie.pop();
    put_varint(&mut lie, 1 << 60);
    let read = Changeset::decode(&sealed_again(&lie));
    assert!(
        matches!(read, Err(DecodeError::Truncated { .. })),
        "{read:?}"
    );
}

#[test]
fn a_changeset_names_so_many_sites_and_no_more() {
    let of = |count: usize| -> VersionVector {
        let version = Hlc::from_bits(1).expect("small");
        let sites = (0..count as u128).map(|site| (SiteId(site.to_be_bytes()), version));
        sites.collect()
    };
    let most = of(SITES_COUNT_MAX);
    assert_eq!(VersionVector::decode(&most.encode()), Ok(most));
    let more = VersionVector::decode(&of(SITES_COUNT_MAX + 1).encode());
    assert!(matches!(more, Err(DecodeError::Invalid { .. })), "{more:?}");
}
