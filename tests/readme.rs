//! Runs what the README tells its reader to run.

use std::fs;
use std::path::Path;

use crate::harness::program::{Desk, extension, feed, text};
use crate::harness::room::{Room, until, until_in_sync};

const README: &str = include_str!("../README.md");

/// Returns the fenced blocks of a language, in order.
fn blocks(language: &str) -> Vec<&'static str> {
    let fenced = README.split("```").skip(1).step_by(2);
    let blocks = fenced.filter_map(|block| block.strip_prefix(language));
    blocks.map(|block| block.trim_start_matches('\n')).collect()
}

fn setup() -> &'static str {
    blocks("sh")[0]
}

fn devices() -> &'static str {
    blocks("sh")[1]
}

fn script() -> &'static str {
    blocks("sh")[2]
}

#[test]
fn the_set_up_is_two_commands() {
    assert_eq!(
        setup(),
        "cargo run --release -- demo\ncargo test --workspace\n"
    );
    assert_eq!((blocks("sh").len(), blocks("text").len()), (3, 3));
}

#[test]
fn the_demo_says_what_the_readme_shows() {
    let files = ["cli/demo.rs", "cli/demo/edits.rs"];
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let source = files.map(|file| fs::read_to_string(root.join(file)).expect("it is there"));
    let source = source.concat();
    let shown = blocks("text")[0].lines().filter(|line| *line != "…");
    for line in shown {
        let words = line.rsplit("] ").next().expect("a last part");
        let words = words.trim_start().trim_start_matches("ok   ");
        let words = words.split("  ").next().expect("a first part");
        assert!(source.contains(words), "{words}");
    }
}

#[test]
fn the_script_of_the_extension_prints_what_the_readme_shows() {
    let desk = Desk::new();
    if !desk.has_shell() {
        return;
    }
    let built = desk.path("target/loadable/release");
    fs::create_dir_all(&built).expect("a folder");
    let name = extension().file_name().expect("a file");
    fs::copy(extension(), built.join(name)).expect("the extension is copied");
    let script = script()
        .strip_prefix("cargo ext\n")
        .expect("it is built first");
    // Twice: whoever pastes it again sees the same.
    for _ in 0..2 {
        let output = feed(&mut desk.program("sh"), script);
        assert_eq!(text(&output.stderr), "");
        expect_script(blocks("text")[2], &text(&output.stdout));
    }
}

/// Compares line by line; of the digests, which differ from run to run, that they are equal.
#[track_caller]
fn expect_script(shown: &str, found: &str) {
    assert_eq!(shown.lines().count(), found.lines().count(), "{found}");
    let mut digests = Vec::new();
    for (shown, found) in shown.lines().zip(found.lines()) {
        if let Some(shown) = shown.strip_suffix('…') {
            let (shown, found) = (shown.split_once('|'), found.split_once('|'));
            let (shown, found) = (shown.expect("a digest"), found.expect("a digest"));
            assert_eq!(shown.0, found.0);
            assert_eq!(found.1.len(), 64);
            digests.push((shown.1, found.1));
        } else {
            assert_eq!(found, shown);
        }
    }
    assert_eq!(digests.len(), 2);
    assert_eq!(digests[0], digests[1]);
}

#[test]
fn the_commands_for_two_devices_do_what_the_readme_says() {
    let [laptop, phone, spare] = [Room::new(), Room::new(), Room::new()];
    laptop.execute(
        "app.db",
        "CREATE TABLE todo(id TEXT PRIMARY KEY, what TEXT, done INTEGER NOT NULL DEFAULT 0);
        INSERT INTO todo(id, what) VALUES('a', 'buy bread'), ('b', 'call mum');",
    );
    let rows = "SELECT what || done FROM todo ORDER BY id";
    let mut commands = devices()
        .lines()
        .map(|line| line.split("  #").next().unwrap_or(line).trim());
    let mut next = |program: &str| {
        let command = commands.next().expect("a command");
        let rest = command.strip_prefix(program);
        rest.unwrap_or_else(|| panic!("{command} is not {program}"))
            .trim()
    };

    let share = next("syncline share");
    let (mut sharing, ticket) = laptop.share(share);
    let mut shown = blocks("text")[1].lines();
    let ticket_shown = shown.next_back().expect("a ticket").trim_end_matches('…');
    assert!(ticket_shown.starts_with("syncline1") && ticket.starts_with("syncline1"));
    shown.for_each(|line| assert!(sharing.said.contains(line), "{line}"));

    let join = next("syncline join <ticket>");
    let _joined = phone.join(&ticket, join);

    let (file, sql) = next("sqlite3")
        .split_once(' ')
        .expect("a file and a statement");
    laptop.execute(file, sql.trim_matches('"'));
    until_in_sync(&[(&laptop, share), (&phone, join)]);
    assert_eq!(phone.query(join, rows), ["buy bread1", "call mum1"]);

    let said = laptop.done(&["status", next("syncline status")]);
    assert!(said.contains("todo") && said.contains("in sync"), "{said}");
    let snapshot = next("syncline snapshot");
    assert!(laptop.done(&["snapshot", snapshot]).contains("slice 1: "));
    let restore = next("syncline restore <ticket>");
    spare.done(&["restore", &ticket, restore]);
    assert_eq!(spare.query(restore, rows), phone.query(join, rows));

    let leave = next("syncline leave");
    let said = laptop.done(&["ticket", share]);
    assert!(said.starts_with("syncline1"));
    assert_eq!(sharing.interrupt().0, Some(0));
    let serving = laptop.serve(share);
    until("it is served again", || laptop.status(share).is_some());
    drop(serving);
    laptop.done(&["leave", leave]);
    assert_eq!(laptop.query(leave, rows), ["buy bread1", "call mum1"]);
}
