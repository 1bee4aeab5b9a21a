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

/// Replicas of one database, each with an identity and a log of its own.
fn devices<const N: usize>(folder: &Path) -> [Replica; N] {
    let first = Identity::generate().expect("random");
    let secret = DatabaseSecret::generate(first.public_key()).expect("random");
    let secret = Arc::new(secret);
    std::array::from_fn(|at| {
        let identity = Arc::new(Identity::generate().expect("random"));
        let stream = StreamId(random_bytes().expect("random"));
        let log = Log::open(&folder.join(at.to_string()), &secret.id(), stream).expect("a log");
        let conn = Connection::open_in_memory().expect("SQLite");
        replica(conn, log, &(identity, Arc::clone(&secret)))
    })
}

fn run(replica: &mut Replica, sql: &str) {
    replica.conn.execute_batch(sql).expect(sql);
    replica.watch(now_unix_ms()).expect("seal");
}

/// Takes what another replica's log has.
fn pull(into: &mut Replica, from: &Replica) {
    for (stream, _) in from.heads().expect("heads").iter() {
        let envelopes = from
            .read(&stream, Seq::NONE, usize::MAX)
            .expect("envelopes");
        into.receive(envelopes, now_unix_ms()).expect("receive");
    }
}

#[test]
fn what_the_author_of_a_snapshot_had_dropped_comes_with_the_logs_of_others() {
    for is_collected in [false, true] {
        let folder = tempfile::tempdir().expect("a folder");
        let [mut a, mut b, mut c] = devices(folder.path());
        run(
            &mut a,
            "CREATE TABLE t(id INTEGER PRIMARY KEY, a); CREATE TABLE u(id PRIMARY KEY)",
        );
        for table in ["t", "u"] {
            let options = sqlite::TableOptions::default();
            sqlite::track(&a.conn, table, &options, now_unix_ms()).expect("track");
        }
        run(
            &mut a,
            "INSERT INTO t VALUES(1, 'x'), (2, 'y'); INSERT INTO u VALUES(1)",
        );
        pull(&mut b, &a);
        run(
            &mut b,
            "INSERT INTO t VALUES(3, 'z'); UPDATE t SET a = 'b' WHERE id = 1",
        );
        run(&mut b, "DELETE FROM t WHERE id = 2");
        pull(&mut a, &b);
        if is_collected {
            let seen = sqlite::version_vector(&a.conn).expect("a vector");
            sqlite::collect(&b.conn, &[seen], now_unix_ms()).expect("collect");
        }
        run(&mut b, "DROP TABLE t");
        let snapshot = b.whole(now_unix_ms()).expect("a snapshot");

        let lacking = c.take_whole(&snapshot.changes, now_unix_ms());
        assert_eq!(lacking.expect("it merges"), [Part::whole("t")]);
        assert_eq!(c.tables().expect("tables"), ["u"]);
        let gaps = |replica: &Replica| sqlite::seen(&replica.conn).expect("seen").gaps;
        assert_eq!(gaps(&c).into_keys().collect::<Vec<_>>(), [Part::whole("t")]);

        pull(&mut c, &b);
        pull(&mut c, &a);
        assert_eq!(rows(&c), ["1b", "3z"], "{is_collected}");
        assert!(gaps(&c).is_empty(), "{:?}", gaps(&c));
        let digest = |replica: &Replica| replica.digest(now_unix_ms()).expect("a digest");
        assert_eq!(digest(&c), digest(&a));
    }
}
