//! The process that is killed: it writes, folds, merges and forgets until it reaches its point.

use std::io::{Read, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use super::*;

/// Names the folder in which the process works.
const FOLDER: &str = "SYNCLINE_TEST_VICTIM";
/// Names the point at which it waits to be killed.
const POINT: &str = "SYNCLINE_TEST_KILL_AT";

/// How many times the countdown still counts down; zero where nothing is armed.
static COUNTDOWN: AtomicU64 = AtomicU64::new(0);
/// Whether the next commit is the point.
static AT_COMMIT: AtomicU64 = AtomicU64::new(0);

/// Starts the process.
pub(super) fn start(folder: &Path, point: Point) -> Child {
    let this = std::env::current_exe().expect("the test binary");
    Command::new(this)
        .args([
            "--exact",
            "tests::kills::victim::a_process_works_until_it_is_killed",
        ])
        .arg("--nocapture")
        .env(FOLDER, folder)
        .env(POINT, point.to_text())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the test binary starts")
}

/// Tells who started the process what is done.
fn say(words: &str) {
    let mut output = std::io::stdout().lock();
    writeln!(output, "\n{SIGN} {words}").expect("somebody listens");
    output.flush().expect("somebody listens");
}

/// Says that the point is reached, and waits for the end.
fn reached(place: &str) {
    say(&format!("reached {place}"));
    let mut nothing = [0];
    // The pipe ends early only if nobody is left who could kill.
    let _ = std::io::stdin().read(&mut nothing);
    std::process::exit(1);
}

fn count_down() -> bool {
    let left = COUNTDOWN.load(Ordering::Relaxed);
    if left > 0 {
        COUNTDOWN.store(left - 1, Ordering::Relaxed);
        if left == 1 {
            reached("within");
        }
    }
    false
}

fn before_commit() -> bool {
    if AT_COMMIT.load(Ordering::Relaxed) > 0 {
        reached("commit");
    }
    false
}

/// Not a test of its own: what the others start in another process, and kill.
#[test]
fn a_process_works_until_it_is_killed() {
    let (Some(folder), Ok(point)) = (std::env::var_os(FOLDER), std::env::var(POINT)) else {
        return;
    };
    let point = Point::parse(&point);
    let mut conn = open(&Path::new(&folder).join(DATABASE));
    // Changed pages go to the file long before the commit, and the log is copied back often.
    conn.execute_batch("PRAGMA cache_size = 8; PRAGMA wal_autocheckpoint = 16")
        .expect("settings");
    conn.progress_handler(1, Some(count_down)).expect("a hook");
    conn.commit_hook(Some(before_commit)).expect("a hook");
    let read = |name| std::fs::read(Path::new(&folder).join(name)).expect(name);
    let (incoming, member) = (read(INCOMING), read(MEMBER));
    let member = VersionVector::decode(&member).expect("a version vector");
    let first = last_step(&conn) + 1;
    for step in first.. {
        for phase in PHASES {
            let is_armed = point.phase == Some(phase) && step == first + point.loops;
            if is_armed {
                match point.moment {
                    Moment::Within(count) => COUNTDOWN.store(count, Ordering::Relaxed),
                    Moment::Commit => AT_COMMIT.store(1, Ordering::Relaxed),
                    Moment::After => {}
                }
            }
            let result = match phase {
                Phase::Write => {
                    conn.execute_batch(&transaction(step)).expect("a write");
                    step.cast_unsigned()
                }
                Phase::Fold => {
                    let version = fold(&conn, time(step)).expect("fold");
                    version.expect("something was written").to_bits()
                }
                Phase::Apply => {
                    let report = import(&conn, &incoming, time(step)).expect("import");
                    report.changed_count as u64
                }
                Phase::Collect => {
                    let members = std::slice::from_ref(&member);
                    collect(&conn, members, time(step)).expect("collect") as u64
                }
            };
            // What was done in fewer instructions than were counted ends here.
            COUNTDOWN.store(0, Ordering::Relaxed);
            if is_armed {
                reached("after");
            }
            say(&format!("{} {result}", phase.name()));
        }
    }
}
