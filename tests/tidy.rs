//! Holds the source against its own rules: arrows, headers, sizes, doors to the outside.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// Which crates each crate may use. The root package is the command line.
const ARROWS: [(&str, &[&str]); 6] = [
    ("syncline-crdt", &[]),
    ("syncline-sqlite-ext", &["syncline-crdt"]),
    ("syncline-transport", &[]),
    ("syncline-parity", &[]),
    (
        "syncline-engine",
        &[
            "syncline-crdt",
            "syncline-parity",
            "syncline-sqlite-ext",
            "syncline-transport",
        ],
    ),
    ("syncline", &["syncline-engine"]),
];

/// The folders with source.
const FOLDERS: [&str; 9] = [
    "benches",
    "cli",
    "crdt",
    "engine",
    "examples",
    "parity",
    "sqlite-ext",
    "tests",
    "transport",
];

const THIS: &str = "tests/tidy.rs";
const FILE_LINES_MAX: usize = 600;
const TESTS_LINES_MAX: usize = 1_000;

#[test]
fn manifests_have_the_arrows_of_the_picture() {
    let packages = metadata();
    let known: BTreeMap<&str, &[&str]> = ARROWS.into_iter().collect();
    for package in packages["packages"].as_array().expect("a list") {
        let name = package["name"].as_str().expect("a name");
        let allowed = known.get(name);
        let allowed = allowed.unwrap_or_else(|| panic!("ARROWS does not name {name}"));
        for dependency in package["dependencies"].as_array().expect("a list") {
            let to = dependency["name"].as_str().expect("a name");
            let is_free = name == "syncline" && dependency["kind"] == "dev";
            let is_ours = !dependency["path"].is_null();
            assert!(
                !is_ours || is_free || allowed.contains(&to),
                "the arrow from {name} to {to} is not in the picture"
            );
        }
    }
}

#[test]
fn the_picture_names_every_crate() {
    let picture = read(&Path::new(ROOT).join("ARCHITECTURE.md"));
    for package in metadata()["packages"].as_array().expect("a list") {
        let manifest = package["manifest_path"].as_str().expect("a path");
        let folder = Path::new(manifest).parent().expect("a folder");
        let folder = folder.file_name().expect("a name").to_string_lossy();
        let folder = match package["name"].as_str() {
            Some("syncline") => "cli",
            _ => &folder,
        };
        assert!(picture.contains(&format!("{folder}/")), "{folder}");
    }
}

#[test]
fn every_crate_takes_the_lints_of_the_workspace() {
    for folder in ["", "crdt", "engine", "parity", "sqlite-ext", "transport"] {
        let manifest = read(&Path::new(ROOT).join(folder).join("Cargo.toml"));
        assert!(manifest.contains("[lints]\nworkspace = true"), "{folder}");
    }
    let manifest = read(&Path::new(ROOT).join("Cargo.toml"));
    assert!(manifest.contains("iter_over_hash_type = \"warn\""));
}

#[test]
fn every_file_opens_with_a_sentence() {
    for (path, text) in sources() {
        let header: Vec<&str> = text.lines().take_while(|l| l.starts_with("//! ")).collect();
        assert!(
            header.join(" ").contains(['.', ':']),
            "{path}: the first lines say in a sentence what the file is for, after `//! `"
        );
    }
}

#[test]
fn no_file_is_too_long() {
    for (path, text) in sources() {
        let is_tests = path.starts_with("tests/") || path.ends_with("/tests.rs");
        let most = if is_tests {
            TESTS_LINES_MAX
        } else {
            FILE_LINES_MAX
        };
        let count = text.lines().count();
        assert!(count <= most, "{path} has {count} lines of {most}");
    }
}

#[test]
fn no_test_file_is_forgotten() {
    let sources = sources();
    for path in sources.keys() {
        let Some((folder, file)) = path.rsplit_once('/') else {
            continue;
        };
        if !folder.starts_with("tests") || file == "main.rs" || file == "mod.rs" {
            continue;
        }
        let own = format!("{folder}.rs");
        let above = ["main.rs", "mod.rs"].map(|name| format!("{folder}/{name}"));
        let module = format!("\nmod {};", file.trim_end_matches(".rs"));
        let names = |(path, text): (&String, &String)| {
            (*path == own || above.contains(path))
                && text
                    .replace("\npub(crate) mod ", "\nmod ")
                    .contains(&module)
        };
        assert!(
            sources.iter().any(names),
            "{path} is not part of the test binary"
        );
    }
}

#[test]
fn nothing_is_left_undone_or_switched_off() {
    for (path, line, text) in code() {
        for word in [
            "todo!(",
            "unimplemented!(",
            "#[ignore",
            "#[should_panic",
            "#[allow(",
        ] {
            assert!(!text.contains(word), "{path}:{line}: {word}");
        }
    }
}

#[test]
fn unsafe_code_is_in_the_extension_alone() {
    for (path, line, text) in code() {
        let mut words = text.split(|c: char| !c.is_alphanumeric() && c != '_');
        // A bench may ask the system for CPU time; the compiler wants each place signed.
        let is_allowed = path.starts_with("sqlite-ext/") || path.starts_with("benches/");
        assert!(
            is_allowed || words.all(|word| word != "unsafe"),
            "{path}:{line}"
        );
    }
}

/// What reads a clock or draws randomness.
const DOORS: [&str; 9] = [
    "SystemTime::now",
    "Instant::now",
    "SystemTime::elapsed",
    "getrandom::",
    "OsRng",
    "thread_rng",
    "fastrand::Rng::new",
    "Utc::now",
    "from_entropy",
];

/// How far above a door its sign may stand.
const SIGN_LINES: usize = 6;

#[test]
fn every_door_to_the_outside_has_its_sign() {
    let mut sources = sources();
    let mut unsigned = Vec::new();
    // This file names what it looks for.
    sources.remove(THIS);
    for (path, text) in sources {
        let lines: Vec<&str> = text.lines().map(uncommented).collect();
        let is_clock = |line: &&str| line.contains("std::time") && line.contains("Instant");
        let imports_clock = lines.iter().any(is_clock);
        for (at, line) in lines.iter().enumerate() {
            let Some(door) = DOORS.iter().find(|door| line.contains(**door)) else {
                continue;
            };
            let above = &lines[at.saturating_sub(SIGN_LINES)..=at];
            let is_signed = above
                .iter()
                .any(|line| line.contains("clippy::disallowed_methods"));
            let is_import = line.trim_start().starts_with("use ");
            let is_error = line.contains("getrandom::Error");
            // The runtime of the network has an `Instant` of its own, which tests can hold.
            let is_runtime = *door == "Instant::now" && !imports_clock;
            if !(is_signed || is_import || is_error || is_runtime) {
                unsigned.push(format!("{path}:{}: {door}", at + 1));
            }
        }
    }
    assert!(
        unsigned.is_empty(),
        "without #[expect(clippy::disallowed_methods, reason = …)]: {unsigned:#?}"
    );
}

fn metadata() -> Value {
    let metadata = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--no-deps",
            "--offline",
            "--format-version",
            "1",
        ])
        .current_dir(ROOT)
        .output()
        .expect("cargo runs");
    assert!(metadata.status.success(), "{metadata:?}");
    serde_json::from_slice(&metadata.stdout).expect("cargo writes JSON")
}

/// Returns all source files with their text, by path.
fn sources() -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut folders: Vec<PathBuf> = FOLDERS.iter().map(|f| Path::new(ROOT).join(f)).collect();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten() {
            let path = entry.expect("the folder is readable").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let short = path.strip_prefix(ROOT).expect("it is below the root");
                found.insert(short.display().to_string(), read(&path));
            }
        }
    }
    assert!(found.len() > 20, "the sources are not where they were");
    found
}

/// Returns every line of code but those of this file, which names what it looks for.
fn code() -> Vec<(String, usize, String)> {
    let mut found = Vec::new();
    for (path, text) in sources() {
        if path == THIS {
            continue;
        }
        let lines = text.lines().map(uncommented).map(str::to_owned);
        found.extend(
            lines
                .enumerate()
                .map(|(at, line)| (path.clone(), at + 1, line)),
        );
    }
    found
}

fn uncommented(line: &str) -> &str {
    line.split("//").next().unwrap_or_default()
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
