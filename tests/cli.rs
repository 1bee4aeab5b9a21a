//! The command line: whole sessions as processes, on the loopback.

use std::fs;
use std::io::Read;

use crate::harness::room::{Room, until, until_in_sync};

const TODO: &str = "
    CREATE TABLE todo(id TEXT PRIMARY KEY, what TEXT NOT NULL, done INTEGER NOT NULL DEFAULT 0);
    INSERT INTO todo(id, what) VALUES('a', 'buy bread'), ('b', 'call mum');";
const ROWS: &str = "SELECT id || ' ' || what || ' ' || done FROM todo ORDER BY id";

/// Returns a room with a file `app.db` of two rows.
fn room() -> Room {
    let room = Room::new();
    room.execute("app.db", TODO);
    room
}

/// Returns what lies in the room whose name begins so.
fn names(room: &Room, beginning: &str) -> Vec<String> {
    let entries = fs::read_dir(room.path("")).expect("the room is readable");
    let names = entries.map(|entry| entry.expect("the room is readable").file_name());
    let names = names.map(|name| name.to_string_lossy().into_owned());
    let mut names: Vec<String> = names.filter(|name| name.starts_with(beginning)).collect();
    names.sort();
    names
}

#[test]
fn share_prints_the_ticket_alone_and_join_brings_the_rows() {
    let room = room();
    let (mut sharing, ticket) = room.share("app.db");
    assert!(ticket.starts_with("syncline1"), "{ticket}");
    assert!(
        sharing.said.contains("  todo: tracked, 2 rows\n"),
        "{}",
        sharing.said
    );
    assert!(!sharing.said.contains(&ticket));

    room.done(&["join", &ticket, "copy.db", "--once"]);
    assert_eq!(
        room.query("copy.db", ROWS),
        ["a buy bread 0", "b call mum 0"]
    );
    assert_eq!(sharing.interrupt(), (Some(0), String::new()));

    let said = room.done(&["status", "copy.db"]);
    assert!(
        said.starts_with("copy.db (not served; `syncline serve` starts it)\n"),
        "{said}"
    );
    let [one, other] = ["app.db", "copy.db"].map(|file| room.status(file).expect("it is free"));
    assert_eq!(one["digest"], other["digest"]);
    assert_eq!(other["tables"], serde_json::json!(["todo"]));
    assert_eq!(other["peers"], serde_json::json!([]));
}

#[test]
fn what_waits_for_a_constraint_and_what_stands_aside_is_told() {
    let room = room();
    room.execute(
        "app.db",
        "CREATE TABLE step(id TEXT PRIMARY KEY, todo TEXT REFERENCES todo(id))",
    );
    let (mut sharing, _) = room.share("app.db");
    assert_eq!(sharing.interrupt(), (Some(0), String::new()));
    let said = room.done(&["status", "app.db"]);
    assert!(
        !said.contains("conflicts") && !said.contains("aside"),
        "{said}"
    );
    let orphan = "PRAGMA foreign_keys = OFF; INSERT INTO step VALUES('s', 'nowhere')";
    room.execute("app.db", orphan);
    let said = room.done(&["status", "app.db"]);
    let conflicts =
        "\n  conflicts  1 parked row: syncline_conflicts lists them with their reasons\n";
    assert!(said.contains(conflicts), "{said}");
    let other = "DROP TABLE todo; CREATE TABLE todo(id TEXT PRIMARY KEY, rowid, oid, _rowid_)";
    room.execute("app.db", other);
    let said = room.done(&["status", "app.db"]);
    let aside = "\n  aside      todo: it has columns named rowid, oid and _rowid_";
    assert!(said.contains(aside), "{said}");
}

#[test]
fn changes_that_have_no_place_are_told() {
    let room = room();
    let (_sharing, ticket) = room.share("app.db");
    let other = "CREATE TABLE todo(id INTEGER PRIMARY KEY, other)";
    room.execute("copy.db", other);
    room.done(&["join", &ticket, "copy.db", "--once"]);
    assert_eq!(room.query("copy.db", "SELECT * FROM todo"), [""; 0]);
    let said = room.done(&["status", "copy.db"]);
    let parked = "\n  parked     1 changeset for todo: here it lacks a column that others have, \
        has another key, or is not there\n";
    assert!(said.contains(parked), "{said}");
}

#[test]
fn a_ticket_is_read_from_standard_input_too() {
    let room = room();
    let (_sharing, ticket) = room.share("app.db");
    let mut join = room.syncline(&["join", "-", "copy.db", "--once"]);
    let joined = crate::harness::program::feed(&mut join, &format!("  {ticket}\n"));
    assert!(joined.status.success(), "{joined:?}");
    assert_eq!(room.query("copy.db", ROWS).len(), 2);
}

#[test]
fn plain_writes_arrive_on_the_other_device_both_ways() {
    let [laptop, phone] = [room(), Room::new()];
    let (mut sharing, ticket) = laptop.share("app.db");
    let mut joined = phone.join(&ticket, "app.db");
    let devices = [(&laptop, "app.db"), (&phone, "app.db")];

    laptop.execute("app.db", "UPDATE todo SET done = 1 WHERE id = 'a'");
    until_in_sync(&devices);
    assert_eq!(
        phone.query("app.db", ROWS),
        ["a buy bread 1", "b call mum 0"]
    );
    phone.execute(
        "app.db",
        "DELETE FROM todo WHERE id = 'b'; INSERT INTO todo(id, what) VALUES('c', 'sing')",
    );
    until_in_sync(&devices);
    assert_eq!(laptop.query("app.db", ROWS), ["a buy bread 1", "c sing 0"]);

    let said = phone.done(&["status", "app.db"]);
    assert!(said.starts_with("app.db (served)\n"), "{said}");
    assert!(said.contains(" in sync\n"), "{said}");
    // What is written while nothing runs there is sent when it runs again.
    assert_eq!(joined.terminate().0, Some(0));
    phone.execute("app.db", "UPDATE todo SET what = 'dance' WHERE id = 'c'");
    let _joined = phone.serve("app.db");
    until_in_sync(&devices);
    assert_eq!(laptop.query("app.db", ROWS), ["a buy bread 1", "c dance 0"]);
    sharing.says("gone: ");
}

#[test]
fn a_ticket_of_a_device_that_joined_is_as_good() {
    let room = room();
    let (mut sharing, ticket) = room.share("app.db");
    let _joined = room.join(&ticket, "second.db");
    let mut other = String::new();
    until("the second device prints a ticket", || {
        other = room.run(&["ticket", "second.db"]).stdout;
        !other.is_empty()
    });
    assert_eq!(sharing.interrupt().0, Some(0));
    room.done(&["join", other.trim(), "third.db", "--once"]);
    assert_eq!(room.query("third.db", ROWS).len(), 2);
}

#[test]
fn a_snapshot_on_three_devices_outlives_the_first() {
    let room = room();
    let (sharing, ticket) = room.share("app.db");
    let _second = room.join(&ticket, "second.db");
    let _third = room.join(&ticket, "third.db");
    until_in_sync(&[(&room, "app.db"), (&room, "second.db"), (&room, "third.db")]);
    let said = room.done(&["snapshot", "app.db"]);
    assert!(said.contains("3 slices, any 2 bring it back\n"), "{said}");
    assert!(
        said.ends_with("\nany one of the devices may be lost\n"),
        "{said}"
    );
    let status = room.status("second.db").expect("it is served");
    assert_eq!(status["snapshots"][0]["slices_here"], 1, "{status}");

    drop(sharing);
    fs::remove_dir_all(room.path("app.db-syncline")).expect("the folder goes");
    for file in names(&room, "app.db") {
        fs::remove_file(room.path(&file)).expect("the file goes");
    }
    let ticket = room.done(&["ticket", "second.db"]);
    let said = room.done(&["restore", ticket.trim(), "rescued.db"]);
    assert!(said.starts_with("2 devices gave "), "{said}");
    assert_eq!(
        room.query("rescued.db", ROWS),
        room.query("second.db", ROWS)
    );
    // It takes part again.
    let _rescued = room.serve("rescued.db");
    room.execute("second.db", "UPDATE todo SET done = 1");
    until_in_sync(&[
        (&room, "rescued.db"),
        (&room, "second.db"),
        (&room, "third.db"),
    ]);
    assert_eq!(
        room.query("rescued.db", ROWS),
        ["a buy bread 1", "b call mum 1"]
    );
}

#[test]
fn leave_leaves_no_trace() {
    let room = room();
    let schema = "SELECT group_concat(sql, ';') FROM sqlite_master ORDER BY 1";
    let before = room.query("app.db", schema);
    let (mut sharing, ticket) = room.share("app.db");
    room.done(&["join", &ticket, "copy.db", "--once"]);
    room.refused(
        &["leave", "app.db"],
        1,
        "error: could not leave with `app.db`\n  \
           caused by: another syncline process serves `app.db`\n\
         hint: stop that process first (Ctrl-C there)\n",
    );
    assert_eq!(sharing.interrupt().0, Some(0));

    for file in ["app.db", "copy.db"] {
        let said = room.done(&["leave", file]);
        assert_eq!(
            said,
            format!("{file} is an ordinary SQLite file again; its rows stay\n")
        );
        assert_eq!(room.query(file, schema), before);
        assert_eq!(room.query(file, ROWS).len(), 2);
        assert_eq!(names(&room, file), [file]);
        let bytes = fs::read(room.path(file)).expect("the file is readable");
        assert!(
            !bytes
                .windows(8)
                .any(|part| part.eq_ignore_ascii_case(b"syncline"))
        );
        room.refused(
            &["leave", file],
            1,
            &format!(
                "error: could not leave with `{file}`\n  \
                   caused by: `{file}` takes no part in a sync yet\n\
                 hint: begin with `syncline share <db>`, or with `syncline join <ticket> <db>`\n"
            ),
        );
    }
}

#[test]
fn one_process_serves_a_file_and_it_joins_once() {
    let room = room();
    let (_sharing, ticket) = room.share("app.db");
    let in_use = "another syncline process serves `app.db`\n\
                  hint: stop that process first (Ctrl-C there)\n";
    room.refused(&["serve", "app.db"], 1, &format!("error: {in_use}"));
    room.execute("app.db", "CREATE TABLE later(id TEXT PRIMARY KEY)");
    let words = format!("error: could not share `app.db`\n  caused by: {in_use}");
    room.refused(&["share", "app.db"], 1, &words);
    let tracked = "SELECT name FROM syncline_tables";
    assert_eq!(
        room.query("app.db", tracked),
        ["todo"],
        "nothing is changed"
    );

    room.done(&["join", &ticket, "copy.db", "--once"]);
    for file in ["copy.db", "app.db"] {
        room.refused(
            &["join", &ticket, file],
            1,
            &format!(
                "error: could not join with `{file}`\n  \
                   caused by: `{file}` takes part in a sync already\n\
                 hint: `syncline serve <db>` goes on; `syncline leave <db>` ends it first\n"
            ),
        );
    }
    room.refused(
        &["snapshot", "copy.db"],
        1,
        "error: no syncline process serves `copy.db`\n\
         hint: start it with `syncline serve <db>` in another terminal\n",
    );
}

#[test]
fn a_ticket_that_is_none_is_refused_and_says_why() {
    let room = room();
    let (_sharing, ticket) = room.share("app.db");
    let cut = &ticket[..ticket.len() - 7];
    let last = if ticket.ends_with('a') { "b" } else { "a" };
    let mistyped = format!("{}{last}", &ticket[..ticket.len() - 1]);
    let reasons = [
        (
            cut,
            "the ticket is cut short by 7 characters; copy all of it",
        ),
        (&*mistyped, "the ticket has a wrong character in it"),
        (
            "nonsense",
            "this is not a ticket; a ticket starts with `syncline1`",
        ),
        ("", "this is not a ticket; a ticket starts with `syncline1`"),
    ];
    for (text, reason) in reasons {
        for command in ["join", "restore"] {
            let said = room.run(&[command, text, "copy.db"]);
            let beginning = format!("error: this is not a usable ticket\n  caused by: {reason}");
            assert!(said.stderr.starts_with(&beginning), "{}", said.stderr);
            assert!(
                said.stderr.contains("\nhint: copy the whole ticket"),
                "{}",
                said.stderr
            );
            assert_eq!(said.code, Some(1));
            assert!(
                !said.stderr.contains(&ticket[9..40]),
                "a ticket is a secret"
            );
        }
    }
    assert!(names(&room, "copy.db").is_empty());
}

#[test]
fn a_file_that_cannot_take_part_is_refused_and_says_why() {
    let room = room();
    room.execute("app.db", "CREATE TABLE user(email TEXT UNIQUE)");
    fs::write(
        room.path("letter.txt"),
        "Dear SQLite, this is not a database.".repeat(200),
    )
    .expect("the file is written");
    room.refused(
        &["share", "missing.db"],
        1,
        "error: could not share `missing.db`\n  \
           caused by: there is no file `missing.db`\n\
         hint: name an existing SQLite file, or join one with a ticket\n",
    );
    room.refused(
        &["share", "letter.txt"],
        1,
        "error: could not share `letter.txt`\n  \
           caused by: cannot use `letter.txt`\n  \
           caused by: file is not a database\n",
    );
    room.refused(
        &["share", "app.db", "--table", "nowhere"],
        1,
        "error: could not share `app.db`\n  \
           caused by: `app.db` has no table `nowhere`\n\
         hint: leave --table out to track every table that can be\n",
    );
    room.refused(
        &["share", "app.db", "--table", "user"],
        1,
        "error: could not share `app.db`\n  \
           caused by: cannot track `user`: it has no primary key: declare one, so that \
             devices can tell its rows apart\n\
         hint: give the table a primary key, or leave it out: it stays local\n",
    );
    for command in ["serve", "status", "ticket"] {
        room.refused(
            &[command, "app.db"],
            1,
            "error: `app.db` takes no part in a sync yet\n\
             hint: begin with `syncline share <db>`, or with `syncline join <ticket> <db>`\n",
        );
    }
    assert_eq!(names(&room, ""), ["app.db", "letter.txt"]);
    let tracked = "SELECT name FROM sqlite_master WHERE name LIKE 'syncline%'";
    assert!(room.query("app.db", tracked).is_empty());
}

#[test]
fn a_table_is_shared_with_the_options_that_are_given() {
    let room = room();
    room.execute("app.db", "CREATE TABLE note(id INTEGER PRIMARY KEY, text)");
    let said = room.run(&[
        "share",
        "app.db",
        "--table",
        r#"note={"ids":"counted"}"#,
        "--table",
        r#"todo={"columns":{"done":"sum"}}"#,
    ]);
    assert_eq!(said.code, Some(2));
    assert!(
        said.stderr.contains("unknown variant `sum`"),
        "{}",
        said.stderr
    );
    room.refused(
        &[
            "share",
            "app.db",
            "--table",
            "note",
            "--table",
            r#"todo={"columns":{"what":"counter"}}"#,
        ],
        1,
        "error: could not share `app.db`\n  \
           caused by: `what` of `todo` cannot have its policy: a counter is a column of numbers: \
             declare it INTEGER\n",
    );
    let tables = "SELECT name FROM sqlite_master WHERE name LIKE 'syncline%'";
    assert!(
        room.query("app.db", tables).is_empty(),
        "nothing is changed"
    );

    let mut sharing = room.start(&[
        "share",
        "app.db",
        "--table",
        r#"todo={"columns":{"done":"counter"}}"#,
        "--table",
        r#"note={"ids":"counted"}"#,
    ]);
    let ticket = sharing.line();
    room.done(&["join", &ticket, "copy.db", "--once"]);
    for file in ["app.db", "copy.db"] {
        let policies = "SELECT column_name || ' ' || policy FROM syncline_policies ORDER BY 1";
        assert_eq!(
            room.query(file, policies),
            ["done counter", "text lww", "what lww"]
        );
        let options = "SELECT options FROM syncline_tables WHERE name = 'note'";
        assert_eq!(room.query(file, options), [r#"{"ids":"counted"}"#]);
    }
}

#[test]
fn wrong_usage_is_code_2() {
    let room = room();
    for arguments in [
        &["share"] as &[&str],
        &["unknown"],
        &["share", "app.db", "--unknown"],
        &["share", "app.db", "--listen", "here"],
        &["restore", "ticket", "new.db", "--patience", "-1"],
    ] {
        let said = room.run(arguments);
        assert_eq!((said.code, &*said.stdout), (Some(2), ""), "{arguments:?}");
        assert!(said.stderr.starts_with("error: "), "{}", said.stderr);
    }
    assert_eq!(room.run(&["--help"]).code, Some(0));
    assert_eq!(names(&room, ""), ["app.db"]);
}

#[test]
fn an_attempt_that_fails_leaves_nothing_behind() {
    let room = room();
    let (mut sharing, ticket) = room.share("app.db");
    fs::write(room.path("letter.txt"), "Dear SQLite".repeat(200)).expect("the file is written");
    room.refused(
        &["join", &ticket, "letter.txt"],
        1,
        "error: could not join with `letter.txt`\n  caused by: file is not a database\n",
    );
    room.refused(
        &["restore", &ticket, "app.db"],
        1,
        "error: could not restore `app.db`\n  \
           caused by: there is a file `app.db` already\n\
         hint: name a file that is not there; nothing is overwritten\n",
    );
    // An address of nobody's: listening fails.
    let far = "/ip4/203.0.113.1/tcp/0";
    let said = room.run(&["join", &ticket, "copy.db", "--listen", far]);
    assert_eq!(said.code, Some(1));
    assert!(
        said.stderr
            .ends_with("hint: name a free address with --listen, or leave it out\n")
    );
    assert_eq!(sharing.interrupt().0, Some(0));

    room.refused(
        &["restore", &ticket, "copy.db", "--patience", "0"],
        1,
        "error: could not restore `copy.db`\n  \
           caused by: the database cannot be restored\n  \
           caused by: no other device was reached\n\
         hint: a ticket leads to the device that printed it: take one from a device that is left, \
           with `syncline ticket <db>` while that serves it\n",
    );
    let mut joining = room.start(&["join", &ticket, "copy.db"]);
    joining.says("joining app as ");
    assert_eq!(joining.interrupt(), (Some(1), String::new()));
    let words = "caused by: interrupted before another device was reached\n";
    assert!(joining.said.contains(words), "{}", joining.said);
    assert_eq!(
        names(&room, ""),
        ["app.db", "app.db-syncline", "letter.txt"]
    );
}

#[test]
fn a_folder_whose_file_is_gone_is_not_served_as_an_empty_file() {
    let room = room();
    let (mut sharing, ticket) = room.share("app.db");
    room.done(&["join", &ticket, "copy.db", "--once"]);
    assert_eq!(sharing.interrupt().0, Some(0));
    fs::remove_file(room.path("copy.db")).expect("the file goes");
    let words = "`copy.db` is gone, and its folder `copy.db-syncline` is still there\n\
                 hint: move the folder away; then `syncline join` or `syncline restore` brings \
                 the rows back\n";
    room.refused(&["serve", "copy.db"], 1, &format!("error: {words}"));
    room.refused(&["status", "copy.db"], 1, &format!("error: {words}"));
    let joining = format!("error: could not join with `copy.db`\n  caused by: {words}");
    room.refused(&["join", &ticket, "copy.db"], 1, &joining);
    assert_eq!(names(&room, "copy.db"), ["copy.db-syncline"]);
}

#[test]
fn a_closed_pipe_is_no_error() {
    let room = room();
    let (mut sharing, _) = room.share("app.db");
    sharing.interrupt();
    for arguments in [
        &["status", "app.db"] as &[&str],
        &["status", "app.db", "--json"],
    ] {
        let mut child = room.syncline(arguments).spawn().expect("it starts");
        drop(child.stdout.take());
        let mut complaints = String::new();
        let mut stderr = child.stderr.take().expect("a pipe");
        stderr.read_to_string(&mut complaints).expect("it is text");
        let ended = child.wait().expect("it ends");
        assert_eq!((ended.code(), &*complaints), (Some(0), ""));
    }
}
