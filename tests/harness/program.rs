//! Other programs: what loads the extension, and what runs beside it.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

use tempfile::TempDir;

/// Builds the loadable extension, once, and returns its file.
pub(crate) fn extension() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let built = Command::new(env!("CARGO"))
            .arg("ext")
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output()
            .expect("cargo runs");
        assert!(built.status.success(), "{}", text(&built.stderr));
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("target/loadable/release")
            .join(library("syncline"))
    })
}

/// Returns what the platform calls a library.
fn library(name: &str) -> String {
    use std::env::consts::{DLL_PREFIX, DLL_SUFFIX};
    format!("{DLL_PREFIX}{name}{DLL_SUFFIX}")
}

/// A folder with the extension, where programs are run.
pub(crate) struct Desk {
    folder: TempDir,
}

impl Desk {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join(library("syncline"));
        fs::copy(extension(), file).expect("the extension is copied");
        Desk { folder }
    }

    pub(crate) fn path(&self, file: &str) -> PathBuf {
        self.folder.path().join(file)
    }

    /// Returns a program that will run here, without settings of the user's.
    pub(crate) fn program(&self, name: &str) -> Command {
        let mut command = Command::new(name);
        command
            .current_dir(self.folder.path())
            .env("HOME", self.folder.path())
            .env_remove("XDG_CONFIG_HOME")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Runs a script in the shell, and returns its output and its complaints.
    pub(crate) fn shell(&self, script: &str) -> (String, String) {
        let output = feed(self.program("sqlite3").arg("-batch"), script);
        (text(&output.stdout), text(&output.stderr))
    }

    /// Whether there is a shell that loads extensions; says so if not.
    pub(crate) fn has_shell(&self) -> bool {
        let load = ["-batch", ":memory:", ".load ./missing"];
        let why = match self.program("sqlite3").args(load).output() {
            Err(error) => error.to_string(),
            Ok(output) if text(&output.stderr).contains("unknown command") => {
                "it does not load extensions".to_owned()
            }
            Ok(_) => return true,
        };
        left_out("sqlite3", &why)
    }
}

/// Says that a program is left out; returns false.
pub(crate) fn left_out(program: &str, why: &str) -> bool {
    println!("left out: {program}: {}", why.trim());
    false
}

/// Runs a program to its end with this input.
pub(crate) fn feed(command: &mut Command, input: &str) -> Output {
    let mut child = command.spawn().expect("the program starts");
    let mut stdin = child.stdin.take().expect("its input is a pipe");
    // A program that stops early closes its input; its output tells why.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    child.wait_with_output().expect("the program ends")
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
