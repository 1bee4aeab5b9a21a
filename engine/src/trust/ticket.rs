//! The ticket that `share` prints and `join` takes: a database's secret and where to find a peer.
//!
//! ```text
//! syncline1 LL BODY          LL: the number of characters in BODY, two base58 digits
//! BODY, base58: genesis 65, epoch key 32, inviter's key 32, name (length 1, text),
//!               addresses (count 1; each length 1, text), checksum 4 (BLAKE3 of all before)
//! ```
//!
//! Whoever holds a ticket can read and write the database. It is shown and pasted, never logged.

use std::fmt;

use thiserror::Error;
use zeroize::Zeroizing;

use super::identity::PublicKey;
use super::secret::{DatabaseId, DatabaseSecret, EpochKey, Genesis};

/// The most addresses a ticket carries.
pub const ADDRESSES_MAX: usize = 8;

/// The most bytes of one address.
pub const ADDRESS_BYTES_MAX: usize = 128;

/// The most bytes of the database's name.
pub const DATABASE_NAME_BYTES_MAX: usize = 64;

/// The most characters a pasted ticket may have, white space included; longer texts are no ticket.
pub const TICKET_CHARS_MAX: usize = 8_192;

const WORD: &str = "syncline";
const VERSION: u32 = 1;
const LENGTH_CHARS: usize = 2;
const LENGTH_MAX: usize = 58 * 58 - 1;
const CHECKSUM_BYTES: usize = 4;
const DIGITS: &[u8; 58] = b"123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";

const BODY_BYTES_MAX: usize = Genesis::BYTES
    + 32
    + 32
    + (1 + DATABASE_NAME_BYTES_MAX)
    + (1 + ADDRESSES_MAX * (1 + ADDRESS_BYTES_MAX))
    + CHECKSUM_BYTES;

// A base58 digit holds 5.85 bits, so 1.366 of them hold a byte.
const _: () = assert!(BODY_BYTES_MAX * 1_366 / 1_000 < LENGTH_MAX);
const _: () = assert!(LENGTH_MAX + 16 <= TICKET_CHARS_MAX);
const _: () = assert!(ADDRESS_BYTES_MAX <= 255 && DATABASE_NAME_BYTES_MAX <= 255);

/// Why a text is no ticket, or a ticket cannot be made.
#[derive(Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum TicketError {
    /// It does not look like a ticket at all.
    #[error(
        "this is not a ticket; a ticket starts with `syncline1` and `syncline share` prints it"
    )]
    NotATicket,
    /// A newer build made it.
    #[error("this is a ticket of version {found}; join with a newer build of syncline")]
    NewerVersion {
        /// The version it names.
        found: u32,
    },
    /// Characters are missing at its end.
    #[error("the ticket is cut short by {missing} characters; copy all of it")]
    CutShort {
        /// How many.
        missing: usize,
    },
    /// Characters follow it.
    #[error("{extra} characters too many follow the ticket; copy the ticket alone")]
    TooLong {
        /// How many.
        extra: usize,
    },
    /// A character is wrong.
    #[error("the ticket has a wrong character in it; copy it again in place of typing it")]
    Mistyped,
    /// The checksum fits and the contents do not.
    #[error("the ticket is whole and its contents break a rule; ask for a new one")]
    Malformed,
    /// The database's name is too long or has control characters.
    #[error(
        "database name of {bytes} bytes; at most {DATABASE_NAME_BYTES_MAX} without control \
         characters fit a ticket, choose a shorter one"
    )]
    Name {
        /// Its size.
        bytes: usize,
    },
    /// An address is empty, too long or not plain text.
    #[error(
        "address of {bytes} bytes; an address is 1 to {ADDRESS_BYTES_MAX} bytes of text without \
         spaces or control characters"
    )]
    Address {
        /// Its size.
        bytes: usize,
    },
    /// Too many addresses.
    #[error("{count} addresses; at most {ADDRESSES_MAX} fit a ticket, keep the best")]
    Addresses {
        /// How many.
        count: usize,
    },
}

/// What one device hands to another so that it can take part.
#[derive(Clone)]
pub struct Ticket {
    secret: DatabaseSecret,
    inviter: PublicKey,
    name: String,
    addresses: Vec<String>,
}

impl Ticket {
    /// Makes a ticket for `secret`'s database, to be met at `addresses` (multiaddr texts).
    ///
    /// # Errors
    /// When the name or an address breaks a limit.
    pub fn new(
        secret: DatabaseSecret,
        inviter: PublicKey,
        name: String,
        addresses: Vec<String>,
    ) -> Result<Ticket, TicketError> {
        if name.len() > DATABASE_NAME_BYTES_MAX || name.chars().any(char::is_control) {
            return Err(TicketError::Name { bytes: name.len() });
        }
        if addresses.len() > ADDRESSES_MAX {
            return Err(TicketError::Addresses {
                count: addresses.len(),
            });
        }
        if let Some(address) = addresses.iter().find(|address| !address_is_plain(address)) {
            return Err(TicketError::Address {
                bytes: address.len(),
            });
        }
        Ok(Ticket {
            secret,
            inviter,
            name,
            addresses,
        })
    }

    /// Reads a pasted ticket; white space anywhere in it is ignored.
    ///
    /// # Errors
    /// [`TicketError`] says what is wrong with the text and what to do.
    pub fn parse(text: &str) -> Result<Ticket, TicketError> {
        if text.len() > TICKET_CHARS_MAX {
            return Err(TicketError::NotATicket);
        }
        let mut characters = Zeroizing::new(String::with_capacity(text.len()));
        characters.extend(text.chars().filter(|character| !character.is_whitespace()));
        let body = body_of(&characters)?;
        let mut bytes = Zeroizing::new(vec![0; BODY_BYTES_MAX]);
        let count = bs58::decode(body)
            .onto(&mut bytes[..])
            .map_err(|_| TicketError::Mistyped)?;
        let (contents, checksum) = bytes[..count]
            .split_last_chunk()
            .ok_or(TicketError::Mistyped)?;
        if checksum_of(contents) != *checksum {
            return Err(TicketError::Mistyped);
        }
        decode(contents)
    }

    /// Returns the ticket as text: a secret, to be shown and not logged.
    pub fn to_text(&self) -> Zeroizing<String> {
        let mut bytes = Zeroizing::new(Vec::with_capacity(BODY_BYTES_MAX));
        bytes.extend_from_slice(&self.secret.genesis().encode());
        bytes.extend_from_slice(self.secret.current_key().expose());
        bytes.extend_from_slice(&self.inviter.0);
        push_text(&mut bytes, &self.name);
        bytes.push(u8::try_from(self.addresses.len()).expect("at most ADDRESSES_MAX"));
        self.addresses
            .iter()
            .for_each(|address| push_text(&mut bytes, address));
        let checksum = checksum_of(&bytes);
        bytes.extend_from_slice(&checksum);
        assert!(
            bytes.len() <= BODY_BYTES_MAX,
            "the limits were checked when the ticket was made"
        );
        let body = Zeroizing::new(bs58::encode(&bytes[..]).into_string());
        let length = [DIGITS[body.len() / 58], DIGITS[body.len() % 58]].map(char::from);
        let mut text = Zeroizing::new(String::with_capacity(WORD.len() + 3 + body.len()));
        text.push_str(WORD);
        text.push('1');
        text.extend(length);
        text.push_str(&body);
        text
    }

    /// Returns the database's secret.
    pub fn secret(&self) -> &DatabaseSecret {
        &self.secret
    }

    /// Returns the database's id.
    pub fn database(&self) -> DatabaseId {
        self.secret.id()
    }

    /// Returns the key with which the inviting peer authenticates itself.
    pub fn inviter(&self) -> PublicKey {
        self.inviter
    }

    /// Returns the database's name, as the inviter calls it: at most 64 bytes, any characters.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns where the inviter can be reached: multiaddr texts, best first.
    pub fn addresses(&self) -> &[String] {
        &self.addresses
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "Ticket({}, from {})",
            self.database(),
            self.inviter
        )
    }
}

/// Says whether `address` is text that may be kept and sent as an address.
///
/// Whether anything can be reached there only the transport knows.
pub fn address_is_plain(address: &str) -> bool {
    (1..=ADDRESS_BYTES_MAX).contains(&address.len())
        && !address
            .chars()
            .any(|character| character.is_control() || character.is_whitespace())
}

/// Returns the part after the prefix and the length, which must be as long as it says.
fn body_of(characters: &str) -> Result<&str, TicketError> {
    let rest = characters
        .strip_prefix(WORD)
        .ok_or(TicketError::NotATicket)?;
    // Beyond the version come base58 digits, of which the first is never above 2: the length is
    // below 3 * 58. So one digit is the version, until there are ten versions.
    let version = rest.chars().next().and_then(|digit| digit.to_digit(10));
    match version.ok_or(TicketError::NotATicket)? {
        0 => return Err(TicketError::NotATicket),
        VERSION => {}
        found => return Err(TicketError::NewerVersion { found }),
    }
    let rest = &rest[1..];
    if !rest.is_ascii() {
        return Err(TicketError::Mistyped);
    }
    let Some((length, body)) = rest.split_at_checked(LENGTH_CHARS) else {
        return Err(TicketError::CutShort {
            missing: LENGTH_CHARS - rest.len(),
        });
    };
    let length = length.bytes().try_fold(0, |sum, digit| {
        let value = DIGITS.iter().position(|known| *known == digit);
        Ok(sum * 58 + value.ok_or(TicketError::Mistyped)?)
    })?;
    if body.len() < length {
        return Err(TicketError::CutShort {
            missing: length - body.len(),
        });
    }
    if body.len() > length {
        return Err(TicketError::TooLong {
            extra: body.len() - length,
        });
    }
    Ok(body)
}

fn decode(contents: &[u8]) -> Result<Ticket, TicketError> {
    let mut rest = Rest(contents);
    let genesis = Genesis::decode(rest.array()?).ok_or(TicketError::Malformed)?;
    let key = EpochKey::from_bytes(*rest.array()?);
    let inviter = PublicKey(*rest.array()?);
    let name = rest.text()?;
    let [count] = *rest.array()?;
    let addresses = (0..count)
        .map(|_| rest.text())
        .collect::<Result<Vec<_>, _>>()?;
    if !rest.0.is_empty() {
        return Err(TicketError::Malformed);
    }
    Ticket::new(DatabaseSecret::new(genesis, key), inviter, name, addresses)
}

struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn array<const N: usize>(&mut self) -> Result<&'a [u8; N], TicketError> {
        let (array, rest) = self.0.split_first_chunk().ok_or(TicketError::Malformed)?;
        self.0 = rest;
        Ok(array)
    }

    fn text(&mut self) -> Result<String, TicketError> {
        let [length] = *self.array()?;
        let split = self.0.split_at_checked(usize::from(length));
        let (text, rest) = split.ok_or(TicketError::Malformed)?;
        self.0 = rest;
        String::from_utf8(text.to_vec()).map_err(|_| TicketError::Malformed)
    }
}

fn push_text(bytes: &mut Vec<u8>, text: &str) {
    bytes.push(u8::try_from(text.len()).expect("the limits are below 256"));
    bytes.extend_from_slice(text.as_bytes());
}

fn checksum_of(contents: &[u8]) -> [u8; CHECKSUM_BYTES] {
    *blake3::hash(contents)
        .as_bytes()
        .first_chunk()
        .expect("a hash has 32 bytes")
}
