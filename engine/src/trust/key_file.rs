//! Stores secrets in small files that only their owner can read; refuses those that others can.
//!
//! A file is magic (8 bytes), version (1), payload (fixed size) and a checksum (16, BLAKE3).
//! It appears whole or not at all: it is written under another name, flushed, and linked.

use std::fs::{self, DirBuilder, File, Metadata, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use thiserror::Error;
use zeroize::Zeroizing;

use super::random::{RandomError, random_bytes};

const MAGIC_BYTES: usize = 8;
const CHECKSUM_BYTES: usize = 16;
const FRAMING_BYTES: usize = MAGIC_BYTES + 1 + CHECKSUM_BYTES;

/// What a key file is called inside, and how large its payload is.
pub(super) struct KeyFileKind {
    /// The first bytes of the file.
    pub(super) magic: [u8; MAGIC_BYTES],
    /// The version this build writes; it reads no other.
    pub(super) version: u8,
    /// The bytes between the version and the checksum.
    pub(super) payload_bytes: usize,
}

/// Why a key file could not be stored or loaded.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum KeyFileError {
    /// There is no such file.
    #[error("there is no key file `{}`", path.display())]
    Missing {
        /// The file that was looked for.
        path: PathBuf,
    },
    /// The file exists, and replacing a key would lose it.
    #[error("`{}` exists already; a key is never replaced, move it away first", path.display())]
    Exists {
        /// The file in the way.
        path: PathBuf,
    },
    /// The path names a symbolic link.
    #[error("`{}` is a symbolic link; name the key file itself", path.display())]
    Symlink {
        /// The link.
        path: PathBuf,
    },
    /// The path names a directory, a pipe or a device.
    #[error("`{}` is not a plain file", path.display())]
    NotAFile {
        /// What was named.
        path: PathBuf,
    },
    /// Somebody else owns the file or its directory.
    #[error("`{}` belongs to user {owner}, not to user {user} who runs this", path.display())]
    ForeignOwner {
        /// The file or directory.
        path: PathBuf,
        /// The user id that owns it.
        owner: u32,
        /// The user id of this process.
        user: u32,
    },
    /// Other users may read or change the file.
    #[error(
        "`{}` has mode {mode:04o}, so others can read the key; if nobody has, run `chmod 600`",
        path.display()
    )]
    OpenToOthers {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Other users may replace files in the directory.
    #[error("directory `{}` has mode {mode:04o}; run `chmod 700` on it", path.display())]
    DirectoryOpenToOthers {
        /// The directory.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file is something else.
    #[error("`{}` is not the kind of key file that was expected here", path.display())]
    WrongKind {
        /// The file.
        path: PathBuf,
    },
    /// A newer build wrote the file.
    #[error(
        "`{}` has version {found}, and this build reads version {supported}; use a newer build",
        path.display()
    )]
    NewerVersion {
        /// The file.
        path: PathBuf,
        /// The version in the file.
        found: u8,
        /// The version this build reads.
        supported: u8,
    },
    /// The file is cut short, or something was appended.
    #[error(
        "`{}` has {found} bytes in place of {expected}; restore it from a backup",
        path.display()
    )]
    WrongLength {
        /// The file.
        path: PathBuf,
        /// Its size in bytes, counted up to one more than expected.
        found: usize,
        /// The size it should have.
        expected: usize,
    },
    /// The checksum does not fit the contents.
    #[error("`{}` is damaged (its checksum differs); restore it from a backup", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// The operating system refused.
    #[error("cannot access key file `{}`", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What it said.
        #[source]
        source: io::Error,
    },
    /// No random bytes for a new key or for the temporary file's name.
    #[error(transparent)]
    Random(#[from] RandomError),
}

/// Writes a new key file; its directory is made (mode 0700) where there is none.
pub(super) fn create(path: &Path, kind: &KeyFileKind, payload: &[u8]) -> Result<(), KeyFileError> {
    assert_eq!(
        payload.len(),
        kind.payload_bytes,
        "a key file's payload has a fixed size"
    );
    let directory = prepared_directory(path)?;
    let temporary = Temporary(directory.join(temporary_name()?));
    write_private(&temporary.0, &encode(kind, payload)).map_err(io_error(&temporary.0))?;
    // A link never replaces an existing file, which a rename would.
    fs::hard_link(&temporary.0, path).map_err(|source| match source.kind() {
        io::ErrorKind::AlreadyExists => KeyFileError::Exists {
            path: path.to_owned(),
        },
        _ => io_error(path)(source),
    })?;
    drop(temporary);
    File::open(&directory)
        .and_then(|file| file.sync_all())
        .map_err(io_error(&directory))
}

/// Returns a key file's payload, after every check that its owner alone could have read it.
pub(super) fn load(path: &Path, kind: &KeyFileKind) -> Result<Zeroizing<Vec<u8>>, KeyFileError> {
    // Without O_NONBLOCK, opening a named pipe would wait for a writer.
    let flags = libc::O_NOFOLLOW | libc::O_CLOEXEC | libc::O_NONBLOCK;
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(flags)
        .open(path)
        .map_err(|source| match source.raw_os_error() {
            Some(libc::ENOENT) => KeyFileError::Missing {
                path: path.to_owned(),
            },
            Some(libc::ELOOP) => KeyFileError::Symlink {
                path: path.to_owned(),
            },
            _ => io_error(path)(source),
        })?;
    let metadata = file.metadata().map_err(io_error(path))?;
    check_private(path, &metadata, effective_user().map_err(io_error(path))?)?;
    let bytes_max = FRAMING_BYTES + kind.payload_bytes + 1;
    let mut bytes = Zeroizing::new(Vec::with_capacity(bytes_max));
    file.take(bytes_max as u64)
        .read_to_end(&mut bytes)
        .map_err(io_error(path))?;
    decode(path, kind, &bytes)
}

/// Checks that a file is plain, belongs to `user` and is closed to everybody else.
pub(super) fn check_private(
    path: &Path,
    metadata: &Metadata,
    user: u32,
) -> Result<(), KeyFileError> {
    let path = path.to_owned();
    if !metadata.is_file() {
        return Err(KeyFileError::NotAFile { path });
    }
    let (owner, mode) = (metadata.uid(), metadata.mode() & 0o7777);
    if owner != user {
        return Err(KeyFileError::ForeignOwner { path, owner, user });
    }
    if mode & 0o077 != 0 {
        return Err(KeyFileError::OpenToOthers { path, mode });
    }
    Ok(())
}

/// Returns the user id that files made by this process get.
///
/// The owner of a fresh pipe is that user; asking the system directly would need `unsafe`.
pub(super) fn effective_user() -> io::Result<u32> {
    let (reader, _writer) = io::pipe()?;
    Ok(File::from(OwnedFd::from(reader)).metadata()?.uid())
}

fn prepared_directory(path: &Path) -> Result<PathBuf, KeyFileError> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    };
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&directory)
        .map_err(io_error(&directory))?;
    let metadata = fs::metadata(&directory).map_err(io_error(&directory))?;
    let user = effective_user().map_err(io_error(&directory))?;
    let (owner, mode) = (metadata.uid(), metadata.mode() & 0o7777);
    if owner != user {
        return Err(KeyFileError::ForeignOwner {
            path: directory,
            owner,
            user,
        });
    }
    if mode & 0o022 != 0 {
        return Err(KeyFileError::DirectoryOpenToOthers {
            path: directory,
            mode,
        });
    }
    Ok(directory)
}

fn temporary_name() -> Result<String, KeyFileError> {
    Ok(format!(".{:016x}.new", u64::from_le_bytes(random_bytes()?)))
}

fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC)
        .open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn encode(kind: &KeyFileKind, payload: &[u8]) -> Zeroizing<Vec<u8>> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(FRAMING_BYTES + payload.len()));
    bytes.extend_from_slice(&kind.magic);
    bytes.push(kind.version);
    bytes.extend_from_slice(payload);
    let checksum = blake3::hash(&bytes);
    bytes.extend_from_slice(&checksum.as_bytes()[..CHECKSUM_BYTES]);
    bytes
}

fn decode(
    path: &Path,
    kind: &KeyFileKind,
    bytes: &[u8],
) -> Result<Zeroizing<Vec<u8>>, KeyFileError> {
    let path = path.to_owned();
    let expected = FRAMING_BYTES + kind.payload_bytes;
    let found = bytes.len();
    if found > MAGIC_BYTES && bytes[..MAGIC_BYTES] != kind.magic {
        return Err(KeyFileError::WrongKind { path });
    }
    if found > MAGIC_BYTES && bytes[MAGIC_BYTES] > kind.version {
        let (found, supported) = (bytes[MAGIC_BYTES], kind.version);
        return Err(KeyFileError::NewerVersion {
            path,
            found,
            supported,
        });
    }
    if found != expected {
        return Err(KeyFileError::WrongLength {
            path,
            found,
            expected,
        });
    }
    let (body, checksum) = bytes.split_at(expected - CHECKSUM_BYTES);
    if blake3::hash(body).as_bytes()[..CHECKSUM_BYTES] != *checksum
        || body[MAGIC_BYTES] != kind.version
    {
        return Err(KeyFileError::Damaged { path });
    }
    Ok(Zeroizing::new(body[MAGIC_BYTES + 1..].to_vec()))
}

fn io_error(path: &Path) -> impl FnOnce(io::Error) -> KeyFileError + use<> {
    let path = path.to_owned();
    move |source| KeyFileError::Io { path, source }
}

/// A file under its first name, which goes away whether or not the link was made.
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        // One left behind holds a key nobody uses, under a name nobody reads.
        let _ = fs::remove_file(&self.0);
    }
}
