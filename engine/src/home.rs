//! The folder beside a database that holds what a node must remember: its keys, log and symbols.

use std::fs::{self, DirBuilder, File, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::trust::{DatabaseSecret, Identity, KeyFileError, RandomError};

/// What a folder's name has after the database's.
const SUFFIX: &str = "-syncline";

/// The folder of one database.
#[derive(Clone, Debug)]
pub struct Home {
    database: PathBuf,
    folder: PathBuf,
}

/// A folder that no other process has, with its keys.
#[derive(Debug)]
pub struct OpenHome {
    /// The folder.
    pub home: Home,
    /// This device's key.
    pub identity: Arc<Identity>,
    /// The database's keys.
    pub secret: Arc<DatabaseSecret>,
    /// Held, not used: the lock on it ends when it is closed.
    _lock: File,
}

/// Why a folder cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HomeError {
    /// The database was never shared or joined.
    #[error("`{}` takes no part in a sync yet", database.display())]
    Absent {
        /// The database.
        database: PathBuf,
    },
    /// It takes part already.
    #[error("`{}` takes part in a sync already", database.display())]
    Present {
        /// The database.
        database: PathBuf,
    },
    /// Another process has it.
    #[error("another syncline process serves `{}`", database.display())]
    InUse {
        /// The database.
        database: PathBuf,
    },
    /// A key file cannot be used.
    #[error(transparent)]
    Key(#[from] KeyFileError),
    /// There is no randomness to make keys of.
    #[error(transparent)]
    Random(#[from] RandomError),
    /// The operating system refused.
    #[error("cannot use `{}`", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
}

impl Home {
    /// Returns the folder that belongs to a database, whether or not it exists.
    pub fn of(database: &Path) -> Self {
        let mut folder = database.as_os_str().to_owned();
        folder.push(SUFFIX);
        Home {
            database: database.to_owned(),
            folder: folder.into(),
        }
    }

    /// Returns the database's file.
    pub fn database(&self) -> &Path {
        &self.database
    }

    /// Returns the folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Returns the database's name for people: its file's, without the ending.
    pub fn name(&self) -> String {
        let stem = self
            .database
            .file_stem()
            .unwrap_or_default()
            .to_string_lossy();
        stem.chars().filter(|c| !c.is_control()).take(16).collect()
    }

    /// Whether the database takes part in a sync.
    pub fn exists(&self) -> bool {
        self.path("secret").exists()
    }

    /// Makes the folder and puts a database's keys into it.
    ///
    /// # Errors
    ///
    /// [`HomeError::Present`] if it takes part already; see [`HomeError`].
    pub fn create(
        &self,
        make: impl FnOnce(&Identity) -> Result<DatabaseSecret, HomeError>,
    ) -> Result<OpenHome, HomeError> {
        if self.exists() {
            return Err(HomeError::Present {
                database: self.database.clone(),
            });
        }
        let made = DirBuilder::new().mode(0o700).create(&self.folder);
        match made {
            // An earlier attempt got this far.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            made => made.map_err(self.at(&self.folder))?,
        }
        let lock = self.lock()?;
        let identity = Identity::load_or_create(&self.path("identity"))?;
        let secret = make(&identity)?;
        // The secret comes last: with it the folder counts as there.
        secret.save(&self.path("secret"))?;
        Ok(self.opened(identity, secret, lock))
    }

    /// Opens the folder for this process alone.
    ///
    /// # Errors
    ///
    /// [`HomeError::Absent`], [`HomeError::InUse`]; see [`HomeError`].
    pub fn open(&self) -> Result<OpenHome, HomeError> {
        if !self.exists() {
            return Err(HomeError::Absent {
                database: self.database.clone(),
            });
        }
        let lock = self.lock()?;
        let identity = Identity::load(&self.path("identity"))?;
        let secret = DatabaseSecret::load(&self.path("secret"))?;
        Ok(self.opened(identity, secret, lock))
    }

    /// Removes the folder with all it holds.
    ///
    /// # Errors
    ///
    /// [`HomeError::InUse`]; see [`HomeError`].
    pub fn remove(&self) -> Result<(), HomeError> {
        if !self.folder.exists() {
            return Ok(());
        }
        let lock = self.lock()?;
        fs::remove_dir_all(&self.folder).map_err(self.at(&self.folder))?;
        drop(lock);
        Ok(())
    }

    /// Returns a file's path in the folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Returns where the running node listens for commands, and makes the folder for it.
    ///
    /// A socket's path may have about 100 bytes, so it does not lie beside the database.
    ///
    /// # Errors
    ///
    /// If the folder for sockets cannot be made, or belongs to somebody else.
    pub fn socket(&self) -> Result<PathBuf, HomeError> {
        let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
        let runtime = runtime.filter(|folder| folder.is_dir());
        let folder = match runtime {
            Some(runtime) => runtime.join("syncline"),
            None => std::env::temp_dir().join(format!("syncline-{}", self.owner()?)),
        };
        match DirBuilder::new().mode(0o700).create(&folder) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            made => made.map_err(self.at(&folder))?,
        }
        let metadata = fs::symlink_metadata(&folder).map_err(self.at(&folder))?;
        if !metadata.is_dir() || metadata.mode() & 0o077 != 0 || metadata.uid() != self.owner()? {
            let source = io::Error::other("it must be a folder of yours that only you can use");
            return Err(HomeError::Io {
                path: folder,
                source,
            });
        }
        let place = fs::canonicalize(&self.folder).map_err(self.at(&self.folder))?;
        let name = blake3::hash(place.as_os_str().as_encoded_bytes()).to_hex();
        Ok(folder.join(format!("{}.sock", &name[..16])))
    }

    /// Returns the user who owns the folder: the one who runs this process.
    fn owner(&self) -> Result<u32, HomeError> {
        Ok(fs::metadata(&self.folder)
            .map_err(self.at(&self.folder))?
            .uid())
    }

    fn lock(&self) -> Result<File, HomeError> {
        let path = self.path("lock");
        let lock = File::options().create(true).append(true).open(&path);
        let lock = lock.map_err(self.at(&path))?;
        match lock.try_lock() {
            Ok(()) => Ok(lock),
            Err(TryLockError::WouldBlock) => Err(HomeError::InUse {
                database: self.database.clone(),
            }),
            Err(TryLockError::Error(source)) => Err(HomeError::Io { path, source }),
        }
    }

    fn opened(&self, identity: Identity, secret: DatabaseSecret, lock: File) -> OpenHome {
        let (identity, secret) = (Arc::new(identity), Arc::new(secret));
        OpenHome {
            home: self.clone(),
            identity,
            secret,
            _lock: lock,
        }
    }

    fn at(&self, path: &Path) -> impl FnOnce(io::Error) -> HomeError + use<> {
        let path = path.to_owned();
        move |source| HomeError::Io { path, source }
    }
}
