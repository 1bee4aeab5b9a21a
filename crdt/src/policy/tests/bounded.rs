//! Bounded counters: what sites may subtract, and what a peer may claim.

use super::*;

#[test]
fn rights_are_where_they_were_added_until_they_are_granted() {
    let policy = Policy::BoundedCounter { floor: 10 };
    let mut cell = SiteEntries::new(policy);
    let entry = cell.edit(site(1), &Value::Integer(300)).expect("news");
    cell.join(stamp(1, 1), &entry).expect("joined");
    assert_eq!(cell.rights(site(1)), Some(290));
    assert_eq!(cell.rights(site(2)), Some(0));
    assert_eq!(cell.edit(site(2), &Value::Integer(200)), None);
    assert_eq!(
        cell.grant(site(2), site(3), 1),
        Err(GrantError::TooFew { rights: 0 })
    );
    let entry = cell.grant(site(1), site(2), 40).expect("it has 290");
    cell.join(stamp(2, 1), &entry).expect("joined");
    assert_eq!(cell.rights(site(1)), Some(250));
    assert_eq!(cell.rights(site(2)), Some(40));
    // Without a trigger to stop it: as much as the rights allow.
    let entry = cell.edit(site(2), &Value::Integer(200)).expect("news");
    cell.join(stamp(3, 2), &entry).expect("joined");
    assert_eq!(cell.shown(), Some(Value::Integer(260)));
    assert_eq!(cell.rights(site(2)), Some(0));
    assert_eq!(cell.least(site(2)), Some(260));
    assert_eq!(cell.least(site(1)), Some(10));
    assert_eq!(cell.holders(), BTreeMap::from([(site(1), 250)]));
    assert_eq!(cell.grant(site(1), site(1), 5), Err(GrantError::ToItself));
    assert_eq!(
        cell.grant(site(1), site(2), 0),
        Err(GrantError::NotPositive)
    );
}

/// An entry of a bounded counter in its bytes: amounts that fit into one byte.
fn escrow(added: u8, used: u8, granted: &[(u8, u8)]) -> Vec<u8> {
    let mut bytes = vec![1, added, 1, used, granted.len() as u8];
    for (to, amount) in granted {
        bytes.extend_from_slice(&[*to; 16]);
        bytes.extend_from_slice(&[1, *amount]);
    }
    bytes
}

#[test]
fn a_site_that_uses_what_it_does_not_have_takes_nothing_from_others() {
    let mut cell = SiteEntries::new(Policy::BoundedCounter { floor: 0 });
    cell.join(stamp(1, 1), &escrow(20, 5, &[(2, 4)]))
        .expect("joined");
    // Site 2 used more than the 4 it has, and site 3 gives away what it never had.
    cell.join(stamp(1, 2), &escrow(0, 100, &[]))
        .expect("joined");
    cell.join(stamp(1, 3), &escrow(0, 0, &[(3, 50), (4, 7)]))
        .expect("joined");
    let held = BTreeMap::from([(site(1), 11), (site(4), 7)]);
    assert_eq!(cell.holders(), held);
    assert_eq!(cell.shown(), Some(Value::Integer(18)));
    let least: Vec<_> = (1..5).filter_map(|by| cell.least(site(by))).collect();
    assert_eq!(least, [7, 18, 18, 11]);
    // It may go on to add, and that counts once its debt is paid.
    cell.join(stamp(2, 2), &escrow(110, 100, &[]))
        .expect("joined");
    assert_eq!(cell.shown(), Some(Value::Integer(32)));
}

#[test]
fn entries_of_bounded_counters_that_break_their_rules_are_refused() {
    let mut cell = SiteEntries::new(Policy::BoundedCounter { floor: 0 });
    let many: Vec<(u8, u8)> = vec![(1, 1), (1, 2)];
    for wrong in [
        escrow(0xff, 0, &[]),
        escrow(0, 0x80, &[]),
        escrow(1, 0, &[(2, 0)]),
        escrow(1, 0, &[(2, 0xff)]),
        escrow(1, 0, &[(3, 1), (2, 1)]),
        escrow(1, 0, &many),
        vec![],
        vec![1, 1, 1, 0],
        vec![1, 1, 1, 0, 0xff, 0xff, 0xff, 0x7f],
        [escrow(1, 0, &[]), vec![0]].concat(),
    ] {
        cell.join(stamp(1, 1), &wrong)
            .expect_err("it breaks a rule");
        assert!(cell.is_empty(), "{wrong:?}");
    }
    let mut granted = vec![1, 0, 1, 0, 0x91, 0x4e];
    for number in 0..10_001_u128 {
        granted.extend_from_slice(&number.to_be_bytes());
        granted.extend_from_slice(&[1, 1]);
    }
    let error = cell
        .join(stamp(1, 1), &granted)
        .expect_err("it is one more than fits");
    assert!(error.to_string().contains("at most 10,000"), "{error}");
    granted[4..6].copy_from_slice(&[0x90, 0x4e]);
    granted.truncate(granted.len() - 18);
    cell.join(stamp(1, 1), &granted).expect("as many as fit");
    assert_eq!(cell.shown(), Some(Value::Integer(10_000)));
    let next = cell.edit(site(1), &Value::Integer(20_000)).expect("news");
    cell.join(stamp(2, 1), &next).expect("joined");
    let refused = cell.grant(site(1), SiteId([0xee; 16]), 1);
    assert_eq!(refused, Err(GrantError::TooFew { rights: 0 }));
    let next = cell.edit(site(1), &Value::Integer(40_000)).expect("news");
    cell.join(stamp(3, 1), &next).expect("joined");
    let refused = cell.grant(site(1), SiteId([0xee; 16]), 1);
    assert_eq!(refused, Err(GrantError::TooMany));
}
