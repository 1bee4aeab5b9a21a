//! What a peer claims of a bounded counter that is not so.

use super::*;

/// Returns all that `from` has, with what its counter's entries hold put in place of them.
fn forged(from: &Replica, entry: &[u8]) -> Changeset {
    let mut changes = export(&from.conn, &VersionVector::new(), from.now).expect("export");
    let own = site(from);
    let groups = changes
        .tables
        .iter_mut()
        .flat_map(|table| &mut table.groups);
    let mut count = 0;
    for group in groups.filter(|group| group.kind == GroupKind::Deltas && group.stamp.site == own) {
        for value in &mut group.values {
            if let Value::Blob(bytes) = value {
                *bytes = entry.to_vec();
                count += 1;
            }
        }
    }
    assert_eq!(count, 1);
    Changeset::decode(&changes.encode()).expect("it is well made")
}

#[test]
fn a_peer_that_claims_more_than_there_is_takes_nothing_from_others() {
    let amount = |bytes: &[u8]| [&[bytes.len() as u8], bytes].concat();
    let huge = amount(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    let edge = amount(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]);
    let zero = amount(&[0]);
    for (entry, shown) in [
        // It used what it never had.
        ([&zero[..], &huge, &[0]].concat(), Some("10")),
        // It granted what it never had, to itself and to others.
        (
            [&zero[..], &zero, &[1], &[9; 16], &huge].concat(),
            Some("9223372036854775807"),
        ),
        (
            [&edge[..], &zero, &[0]].concat(),
            Some("9223372036854775807"),
        ),
        ([&huge[..], &huge, &[0]].concat(), Some("10")),
        // It counts in numbers that are none.
        (vec![], None),
        ([&zero[..], &zero].concat(), None),
        ([&zero[..], &amount(&[0xff]), &[0]].concat(), None),
        ([&amount(&[0; 17]), &zero[..], &[0]].concat(), None),
        ([&zero[..], &zero, &[0xff, 0xff, 0xff, 0x7f]].concat(), None),
    ] {
        let [mut a, mut b] = pair(ONE, "1");
        b.run("UPDATE t SET n = n + 1");
        let forged = forged(&b, &entry);
        let digest = a.digest();
        let merged = import_changeset(&a.conn, &forged, b.now);
        let Some(shown) = shown else {
            assert!(
                matches!(merged, Err(ImportError::Delta { .. })),
                "{merged:?}"
            );
            assert_eq!(a.digest(), digest);
            continue;
        };
        merged.expect("it is well made");
        assert_eq!(a.rows(VALUE), [shown]);
        // What was held here before can be taken as before.
        a.run("UPDATE t SET n = n - 4");
        a.run("UPDATE t SET n = n - 6");
        refused(&a, "UPDATE t SET n = n - 1");
        let least: i64 = a.rows(VALUE)[0].parse().expect("a number");
        assert!(least >= 0, "{least}");
        let mut c = replica("", &[]);
        c.pull(&a);
        refused(&c, "UPDATE t SET n = n - 1");
        assert_eq!(c.rows(VALUE), a.rows(VALUE));
    }
}
