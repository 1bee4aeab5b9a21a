//! Tickets that were pasted badly, mistyped, cut short or made up.

use proptest::prelude::*;

use super::*;

fn secret() -> DatabaseSecret {
    let genesis = Genesis::new(PublicKey([7; 32]), [8; 32]);
    DatabaseSecret::new(genesis, EpochKey::from_bytes([9; 32]))
}

fn ticket() -> Ticket {
    let addresses = vec!["/ip4/192.168.1.7/udp/4001/quic-v1".to_owned()];
    Ticket::new(
        secret(),
        PublicKey([1; 32]),
        "groceries".to_owned(),
        addresses,
    )
    .unwrap()
}

fn same(one: &Ticket, other: &Ticket) -> bool {
    one.database() == other.database()
        && one.secret().current_key().expose() == other.secret().current_key().expose()
        && (one.inviter(), one.name(), one.addresses())
            == (other.inviter(), other.name(), other.addresses())
}

proptest! {
    #[test]
    fn parsing_undoes_formatting(
        nonce in any::<[u8; 32]>(),
        key in any::<[u8; 32]>(),
        name in "[a-zé 0-9]{0,20}",
        addresses in prop::collection::vec("/[a-z0-9/.:é]{1,60}", 0..=ADDRESSES_MAX),
    ) {
        let secret =
            DatabaseSecret::new(Genesis::new(PublicKey(key), nonce), EpochKey::from_bytes(key));
        let ticket = Ticket::new(secret, PublicKey(nonce), name, addresses).unwrap();
        let parsed = Ticket::parse(&ticket.to_text()).unwrap();
        prop_assert!(same(&parsed, &ticket));
    }

    #[test]
    fn noise_never_panics(noise in "(syncline[0-9])?\\PC{0,300}") {
        prop_assert!(Ticket::parse(&noise).is_err());
    }
}

#[test]
fn white_space_from_pasting_is_ignored() {
    let ticket = ticket();
    let text = ticket.to_text();
    let lines: Vec<String> = text
        .as_bytes()
        .chunks(40)
        .map(|line| String::from_utf8(line.to_vec()).unwrap())
        .collect();
    for pasted in [
        format!("  {}\n", *text),
        lines.join("\n"),
        lines.join("\r\n\t"),
        format!("\u{a0}{}\u{2028}", lines.join(" ")),
    ] {
        assert!(same(&Ticket::parse(&pasted).unwrap(), &ticket));
    }
}

#[test]
fn every_truncation_is_refused_and_says_so() {
    let text = ticket().to_text();
    for end in 0..text.len() {
        let refused = Ticket::parse(&text[..end]).unwrap_err();
        let expected = match end {
            0..=8 => TicketError::NotATicket,
            9 | 10 => TicketError::CutShort { missing: 11 - end },
            _ => TicketError::CutShort {
                missing: text.len() - end,
            },
        };
        assert_eq!(refused, expected, "{end}");
    }
    for start in 1..text.len() {
        assert_eq!(
            Ticket::parse(&text[start..]).unwrap_err(),
            TicketError::NotATicket
        );
    }
}

#[test]
fn every_change_of_one_character_is_refused() {
    let text = ticket().to_text();
    for at in 0..text.len() {
        for other in (b' '..=b'~').map(char::from).chain(['é', '\n', '\0']) {
            // Every character somewhere, every place with many characters.
            if text[at..].starts_with(other) || !(at + other as usize).is_multiple_of(6) {
                continue;
            }
            let changed = format!("{}{other}{}", &text[..at], &text[at + 1..]);
            let refused = Ticket::parse(&changed).unwrap_err();
            if at > 10 && other.is_ascii_alphanumeric() {
                assert_eq!(refused, TicketError::Mistyped, "{other} at {at}");
            }
        }
    }
}

#[test]
fn swapped_and_doubled_characters_are_refused() {
    let text = ticket().to_text();
    for at in 11..text.len() - 1 {
        let mut bytes = text.as_bytes().to_vec();
        bytes.swap(at, at + 1);
        if bytes != text.as_bytes() {
            let swapped = String::from_utf8(bytes).unwrap();
            assert_eq!(Ticket::parse(&swapped).unwrap_err(), TicketError::Mistyped);
        }
        let doubled = format!("{}{}", &text[..=at], &text[at..]);
        assert_eq!(
            Ticket::parse(&doubled).unwrap_err(),
            TicketError::TooLong { extra: 1 }
        );
    }
}

#[test]
fn other_texts_are_no_tickets() {
    let long = format!("syncline1{}", "a".repeat(TICKET_CHARS_MAX));
    for text in [
        "",
        "hello",
        "https://example.org",
        "syncline",
        "synclineX",
        "syncline0zz",
        &long,
    ] {
        assert_eq!(
            Ticket::parse(text).unwrap_err(),
            TicketError::NotATicket,
            "{text}"
        );
    }
}

#[test]
fn a_ticket_of_a_newer_version_is_named_as_such() {
    let text = ticket().to_text().replacen('1', "2", 1);
    assert_eq!(
        Ticket::parse(&text).unwrap_err(),
        TicketError::NewerVersion { found: 2 }
    );
}

#[test]
fn what_breaks_a_limit_makes_no_ticket() {
    let make = |name: String, addresses: Vec<String>| {
        Ticket::new(secret(), PublicKey([1; 32]), name, addresses).map(drop)
    };
    let address = |bytes: usize| vec!["a".repeat(bytes)];
    assert_eq!(make("n".repeat(64), address(128)), Ok(()));
    assert_eq!(
        make("n".repeat(65), Vec::new()),
        Err(TicketError::Name { bytes: 65 })
    );
    assert_eq!(
        make("a\u{1b}[2J".to_owned(), Vec::new()),
        Err(TicketError::Name { bytes: 5 })
    );
    assert_eq!(
        make(String::new(), address(129)),
        Err(TicketError::Address { bytes: 129 })
    );
    assert_eq!(
        make(String::new(), address(0)),
        Err(TicketError::Address { bytes: 0 })
    );
    for text in ["/ip4 /tcp", "/ip4\n/tcp", "/ip4\0"] {
        let refused = Err(TicketError::Address { bytes: text.len() });
        assert_eq!(make(String::new(), vec![text.to_owned()]), refused);
    }
    let many = vec!["/ip4/1.2.3.4".to_owned(); 9];
    assert_eq!(
        make(String::new(), many),
        Err(TicketError::Addresses { count: 9 })
    );
}

#[test]
fn the_largest_ticket_passes() {
    let addresses = vec!["a".repeat(ADDRESS_BYTES_MAX); ADDRESSES_MAX];
    let ticket = Ticket::new(secret(), PublicKey([255; 32]), "n".repeat(64), addresses).unwrap();
    let text = ticket.to_text();
    assert!(text.len() < TICKET_CHARS_MAX);
    assert!(same(&Ticket::parse(&text).unwrap(), &ticket));
}

#[test]
fn contents_that_break_a_rule_are_refused_though_the_checksum_fits() {
    let honest = ticket().to_text();
    let body = bs58::decode(&honest[11..]).into_vec().unwrap();
    let contents = &body[..body.len() - 4];
    let mut wrong_version = contents.to_vec();
    wrong_version[0] = 2;
    let mut not_text = contents.to_vec();
    not_text[130] = 0xff;
    let mut nine = contents.to_vec();
    nine[139] = 9;
    let longer = [contents, &[0]].concat();
    for made_up in [
        &wrong_version[..],
        &not_text,
        &nine,
        &longer,
        &contents[..140],
        &[],
        &[1],
    ] {
        let hash = blake3::hash(made_up);
        let checksum = &hash.as_bytes()[..4];
        let body = bs58::encode([made_up, checksum].concat()).into_string();
        let digits = b"123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";
        let length = [digits[body.len() / 58], digits[body.len() % 58]].map(char::from);
        let text = format!("syncline1{}{}{body}", length[0], length[1]);
        assert_eq!(Ticket::parse(&text).unwrap_err(), TicketError::Malformed);
    }
}
