//! What becomes of a database that lost something.

use super::*;

fn replica(conn: Connection, log: Log, keys: &(Arc<Identity>, Arc<DatabaseSecret>)) -> Replica {
    let (identity, secret) = keys;
    Replica::new(
        conn,
        log,
        Arc::clone(identity),
        Arc::clone(secret),
        now_unix_ms(),
    )
    .expect("the replica opens")
}

fn rows(replica: &Replica) -> Vec<String> {
    let rows = "SELECT id || a FROM t ORDER BY id";
    let mut statement = replica.conn.prepare(rows).expect("the table is there");
    let rows = statement.query_map([], |row| row.get(0)).expect("rows");
    rows.collect::<Result<_, _>>().expect("texts")
}

#[test]
fn what_is_written_through_its_own_connection_is_sealed() {
    let identity = Arc::new(Identity::generate().expect("random"));
    let secret = DatabaseSecret::generate(identity.public_key()).expect("random");
    let keys = (identity, Arc::new(secret));
    let folder = tempfile::tempdir().expect("a folder");
    let stream = StreamId(random_bytes().expect("random"));
    let log = Log::open(&folder.path().join("log"), &keys.1.id(), stream).expect("a log");
    let mut replica = replica(Connection::open_in_memory().expect("SQLite"), log, &keys);
    replica
        .conn
        .execute_batch("CREATE TABLE t(id INTEGER PRIMARY KEY)")
        .expect("schema");
    sqlite::track(
        &replica.conn,
        "t",
        &sqlite::TableOptions::default(),
        now_unix_ms(),
    )
    .expect("track");
    for (sql, count) in [
        ("INSERT INTO t VALUES(1)", 1),
        ("SELECT 1", 0),
        ("DELETE FROM t", 1),
    ] {
        replica.conn.execute_batch(sql).expect(sql);
        assert_eq!(
            replica.watch(now_unix_ms()).expect("seal").len(),
            count,
            "{sql}"
        );
    }
}

#[test]
fn a_database_that_was_rolled_back_or_lost_comes_back_from_the_log() {
    let identity = Arc::new(Identity::generate().expect("random"));
    let secret = DatabaseSecret::generate(identity.public_key()).expect("random");
    let keys = (identity, Arc::new(secret));
    let folder = tempfile::tempdir().expect("a folder");
    let (db, old) = (folder.path().join("app.db"), folder.path().join("old.db"));
    let log = || {
        let stream = StreamId(random_bytes().expect("random"));
        Log::open(&folder.path().join("log"), &keys.1.id(), stream).expect("the log opens")
    };
    let open = |path| Connection::open(path).expect("the file opens");

    open(&db)
        .execute_batch("CREATE TABLE t(id INTEGER PRIMARY KEY, a)")
        .expect("schema");
    sqlite::track(
        &open(&db),
        "t",
        &sqlite::TableOptions::default(),
        now_unix_ms(),
    )
    .expect("track");
    let mut first = replica(open(&db), log(), &keys);
    open(&db)
        .execute_batch("INSERT INTO t VALUES(1, 'kept')")
        .expect("write");
    first.watch(now_unix_ms()).expect("seal");
    std::fs::copy(&db, &old).expect("a copy");
    open(&db)
        .execute_batch("INSERT INTO t VALUES(2, 'lost')")
        .expect("write");
    first.watch(now_unix_ms()).expect("seal");
    drop(first);

    for path in [&old, &folder.path().join("new.db")] {
        let mut again = replica(open(path), log(), &keys);
        assert_eq!(rows(&again), ["1kept", "2lost"]);
        open(path)
            .execute_batch("INSERT INTO t VALUES(3, 'more')")
            .expect("write");
        assert_eq!(again.watch(now_unix_ms()).expect("seal").len(), 1);
        open(path)
            .execute_batch("DELETE FROM t WHERE id = 3")
            .expect("write");
        again.watch(now_unix_ms()).expect("seal");
    }
}
