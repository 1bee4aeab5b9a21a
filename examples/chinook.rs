//! Two devices with the same music shop work apart and meet: ids collide, an artist is deleted
//! here and extended there, and nobody's row is lost.
//!
//! `cargo run --release --example chinook` brings a small shop of its own;
//! `cargo run --release --example chinook -- <chinook.sqlite>` copies the one it is given.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use rusqlite::Connection;
use syncline_sqlite::{
    Ids, TableOptions, digest, export, fold, import, prepare, track, version_vector,
};

/// The shop's tables, the referenced before those that refer to them.
const TABLES: [&str; 9] = [
    "Artist",
    "Album",
    "MediaType",
    "Track",
    "Playlist",
    "PlaylistTrack",
    "Customer",
    "Invoice",
    "InvoiceLine",
];

/// Also in Chinook, and left out of the small shop.
const MORE_TABLES: [&str; 2] = ["Genre", "Employee"];

/// The clock: an example has no use for the real one.
const NOON_UNIX_MS: u64 = 1_800_000_000_000;

/// A shop on one device.
struct Shop {
    name: &'static str,
    db: Connection,
    now_unix_ms: u64,
}

fn main() -> Result<()> {
    let given = std::env::args().nth(1);
    let mut berlin = Shop::open("Berlin", given.as_deref().map(Path::new))?;
    let mut lisbon = Shop::new("Lisbon")?;
    lisbon.now_unix_ms += 1_000;
    lisbon.pull(&berlin)?;
    println!(
        "Two devices have the same shop, {} rows each.\n",
        berlin.row_count()?
    );
    let before = berlin.row_count()?;

    println!("Apart, both sell something to a new customer. SQLite counts the ids:");
    berlin.sell("Ada", "Lovelace")?;
    lisbon.sell("Grace", "Hopper")?;
    println!("\nBoth add a track to the same album:");
    berlin.add_track("Recorded in Berlin")?;
    lisbon.add_track("Recorded in Lisbon")?;
    println!("\nBoth put theirs on a new playlist:");
    berlin.make_playlist("Recorded in Berlin")?;
    lisbon.make_playlist("Recorded in Lisbon")?;
    println!("\nBerlin deletes an artist whose albums Lisbon extends meanwhile:");
    let deleted = berlin.delete_artist("Accept")?;
    lisbon.extend_artist("Accept")?;

    println!("\nThey meet.");
    berlin.pull(&lisbon)?;
    lisbon.pull(&berlin)?;
    berlin.pull(&lisbon)?;
    // A customer, an invoice, two lines, a track, a playlist and its track on each, an album and its
    // track on one.
    let expected = before - deleted + 2 * 7 + 2;
    for shop in [&berlin, &lisbon] {
        shop.keeps_its_constraints()?;
        let (shown, waiting) = (shop.row_count()?, shop.waiting_count()?);
        println!(
            "  {}: {shown} rows are shown, {waiting} wait, foreign_key_check finds nothing",
            shop.name
        );
        ensure!(
            shown + waiting == expected,
            "{}: {shown} + {waiting} rows, {expected} were written",
            shop.name
        );
        shop.sold_to("Lovelace", "Berlin")?;
        shop.sold_to("Hopper", "Lisbon")?;
        shop.plays("Recorded in Berlin")?;
        shop.plays("Recorded in Lisbon")?;
    }
    ensure_equal(&berlin, &lisbon)?;
    println!(
        "  Both are equal, and each invoice is its own customer's, each playlist has its own track. What waits:"
    );
    berlin.print(
        "SELECT table_name || ' ' || row || ', since ' || reason FROM syncline_conflicts
         ORDER BY table_name, key",
    )?;

    println!("\nLisbon brings the artist back under its id:");
    lisbon.bring_back("Accept")?;
    berlin.pull(&lisbon)?;
    lisbon.pull(&berlin)?;
    for shop in [&berlin, &lisbon] {
        shop.keeps_its_constraints()?;
        ensure!(shop.waiting_count()? == 0, "{}: rows still wait", shop.name);
        ensure!(
            shop.row_count()? == expected + 1,
            "{}: rows are missing",
            shop.name
        );
    }
    ensure_equal(&berlin, &lisbon)?;
    berlin.print(
        "SELECT Artist.Name || ': ' || Album.Title || ', ' || Track.Name FROM Artist
         JOIN Album USING(ArtistId) JOIN Track USING(AlbumId)
         WHERE Album.Title = 'Live in Lisbon'",
    )?;
    println!("\nNothing waits any more, and no row was lost.");
    Ok(())
}

impl Shop {
    fn new(name: &'static str) -> Result<Self> {
        let db = Connection::open_in_memory()?;
        prepare(&db)?;
        db.execute_batch("PRAGMA foreign_keys = ON")?;
        Ok(Shop {
            name,
            db,
            now_unix_ms: NOON_UNIX_MS,
        })
    }

    /// Opens a copy of a shop, or the small one, and tracks its tables.
    fn open(name: &'static str, path: Option<&Path>) -> Result<Self> {
        let shop = Shop::new(name)?;
        match path {
            None => shop
                .db
                .execute_batch(include_str!("chinook/music_shop.sql"))?,
            Some(path) => shop.copy_from(path)?,
        }
        // Ids are counted on each device: the same number does not mean the same row.
        let options = TableOptions {
            ids: Ids::Counted,
            ..TableOptions::default()
        };
        for table in MORE_TABLES.iter().chain(&TABLES) {
            if shop.has(table)? {
                track(&shop.db, table, &options, shop.now_unix_ms)
                    .with_context(|| format!("{table} cannot be tracked"))?;
            }
        }
        Ok(shop)
    }

    /// Takes over tables, indices and rows of another database, which stays as it is.
    fn copy_from(&self, path: &Path) -> Result<()> {
        let path = path.to_str().context("the path is not UTF-8")?;
        self.db.execute_batch("PRAGMA foreign_keys = OFF")?;
        self.db
            .execute("ATTACH 'file:' || ?1 || '?mode=ro' AS given", [path])
            .with_context(|| format!("{path} cannot be opened"))?;
        let definitions = "SELECT sql, name, type FROM given.sqlite_master
            WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite%' AND type IN ('table', 'index')
            ORDER BY type DESC";
        let mut statement = self.db.prepare(definitions)?;
        let all = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
        let all: Vec<(String, String, String)> = all.collect::<Result<_, _>>()?;
        for (sql, name, kind) in all {
            self.db.execute_batch(&sql)?;
            if kind == "table" {
                let copy = format!("INSERT INTO main.\"{name}\" SELECT * FROM given.\"{name}\"");
                self.db.execute_batch(&copy)?;
            }
        }
        drop(statement);
        Ok(self
            .db
            .execute_batch("DETACH given; PRAGMA foreign_keys = ON")?)
    }

    /// Merges what another shop has written and this one lacks.
    fn pull(&mut self, from: &Shop) -> Result<()> {
        self.now_unix_ms = self.now_unix_ms.max(from.now_unix_ms) + 1_000;
        let seen = version_vector(&self.db)?;
        let changes = export(&from.db, &seen, from.now_unix_ms)?;
        import(&self.db, &changes.encode(), self.now_unix_ms)?;
        Ok(())
    }

    /// Writes as any application does, then lets the clock go on.
    fn write(&mut self, sql: &str) -> Result<()> {
        self.db
            .execute_batch(&format!("BEGIN; {sql}; COMMIT"))
            .with_context(|| sql.to_owned())?;
        fold(&self.db, self.now_unix_ms)?;
        self.now_unix_ms += 1_000;
        Ok(())
    }

    /// A new customer buys the first two tracks.
    fn sell(&mut self, first: &str, last: &str) -> Result<()> {
        let (has_reps, city) = (self.has("Employee")?, self.name);
        let rep = if has_reps { ", SupportRepId" } else { "" };
        let rep_id = if has_reps { ", 3" } else { "" };
        let billing = if has_reps { ", BillingCity" } else { "" };
        let billed = if has_reps {
            format!(", '{city}'")
        } else {
            String::new()
        };
        self.write(&format!(
            "INSERT INTO Customer(FirstName, LastName, Email{rep})
                 VALUES('{first}', '{last}', '{last}@{city}.example'{rep_id});
             INSERT INTO Invoice(CustomerId, InvoiceDate, Total{billing})
                 VALUES(last_insert_rowid(), '2026-11-21', 1.98{billed});
             INSERT INTO InvoiceLine(InvoiceId, TrackId, UnitPrice, Quantity)
                 SELECT (SELECT max(InvoiceId) FROM Invoice), TrackId, UnitPrice, 1
                 FROM Track WHERE AlbumId = 1 OR AlbumId = 5 ORDER BY TrackId LIMIT 2"
        ))?;
        self.print(&format!(
            "SELECT 'customer ' || CustomerId || ' {last}, invoice ' || InvoiceId FROM Customer
             JOIN Invoice USING(CustomerId) WHERE LastName = '{last}'"
        ))
    }

    fn add_track(&mut self, name: &str) -> Result<()> {
        self.write(&format!(
            "INSERT INTO Track(Name, AlbumId, MediaTypeId, Milliseconds, UnitPrice)
             VALUES('{name}', 1, 1, 200000, 0.99)"
        ))?;
        self.print(&format!(
            "SELECT 'track ' || TrackId || ' ' || Name FROM Track WHERE Name = '{name}'"
        ))
    }

    /// Makes a playlist of one track, which has its name.
    fn make_playlist(&mut self, name: &str) -> Result<()> {
        self.write(&format!(
            "INSERT INTO Playlist(Name) VALUES('{name}');
             INSERT INTO PlaylistTrack(PlaylistId, TrackId)
                 SELECT PlaylistId, TrackId FROM Playlist JOIN Track USING(Name)
                 WHERE Name = '{name}'"
        ))?;
        self.print(&format!(
            "SELECT 'playlist ' || PlaylistId || ' ' || Name || ', track ' || TrackId
             FROM Playlist JOIN PlaylistTrack USING(PlaylistId) WHERE Name = '{name}'"
        ))
    }

    /// Checks that a playlist has the track of its name, and no other.
    fn plays(&self, name: &str) -> Result<()> {
        let tracks = "SELECT group_concat(Track.Name, ', ') FROM Playlist
            JOIN PlaylistTrack USING(PlaylistId) JOIN Track USING(TrackId) WHERE Playlist.Name = ?1";
        let found: Option<String> = self.db.query_row(tracks, [name], |row| row.get(0))?;
        ensure!(
            found.as_deref() == Some(name),
            "{}: {name} plays {found:?}",
            self.name
        );
        Ok(())
    }

    /// Deletes an artist with all that refers to it, and returns how many rows that were.
    fn delete_artist(&mut self, artist: &str) -> Result<i64> {
        let before = self.row_count()?;
        let albums = format!(
            "(SELECT AlbumId FROM Album JOIN Artist USING(ArtistId) WHERE Name = '{artist}')"
        );
        let tracks = format!("(SELECT TrackId FROM Track WHERE AlbumId IN {albums})");
        self.write(&format!(
            "DELETE FROM InvoiceLine WHERE TrackId IN {tracks};
             DELETE FROM PlaylistTrack WHERE TrackId IN {tracks};
             DELETE FROM Track WHERE AlbumId IN {albums};
             DELETE FROM Album WHERE AlbumId IN {albums};
             DELETE FROM Artist WHERE Name = '{artist}'"
        ))?;
        let deleted = before - self.row_count()?;
        println!("  {}: {artist} is gone, {deleted} rows", self.name);
        Ok(deleted)
    }

    fn extend_artist(&mut self, artist: &str) -> Result<()> {
        self.write(&format!(
            "INSERT INTO Album(Title, ArtistId)
                 SELECT 'Live in Lisbon', ArtistId FROM Artist WHERE Name = '{artist}';
             INSERT INTO Track(Name, AlbumId, MediaTypeId, Milliseconds, UnitPrice)
                 VALUES('Encore', last_insert_rowid(), 1, 600000, 0.99)"
        ))?;
        self.print(
            "SELECT 'album ' || AlbumId || ' ' || Title || ', track ' || TrackId || ' ' || Name
             FROM Album JOIN Track USING(AlbumId) WHERE Title = 'Live in Lisbon'",
        )
    }

    /// Inserts the artist whose albums wait, with the id they name.
    fn bring_back(&mut self, artist: &str) -> Result<()> {
        self.write(&format!(
            "INSERT INTO Artist(ArtistId, Name)
             SELECT json_extract(row, '$.ArtistId'), '{artist}' FROM syncline_conflicts
             WHERE table_name = 'Album'"
        ))
    }

    fn keeps_its_constraints(&self) -> Result<()> {
        let check = "SELECT count(*) FROM pragma_foreign_key_check";
        let orphans: i64 = self.db.query_row(check, [], |row| row.get(0))?;
        ensure!(orphans == 0, "{}: {orphans} rows are orphans", self.name);
        let check = "SELECT * FROM pragma_integrity_check";
        let verdict: String = self.db.query_row(check, [], |row| row.get(0))?;
        ensure!(verdict == "ok", "{}: {verdict}", self.name);
        Ok(())
    }

    /// Checks that the one invoice of a customer names the city where it was sold, two lines.
    fn sold_to(&self, last: &str, city: &str) -> Result<()> {
        let invoices = "SELECT count(DISTINCT InvoiceId), count(InvoiceLineId), min(Email)
            FROM Customer JOIN Invoice USING(CustomerId) LEFT JOIN InvoiceLine USING(InvoiceId)
            WHERE LastName = ?1";
        let found: (i64, i64, String) = self.db.query_row(invoices, [last], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })?;
        ensure!(
            found == (1, 2, format!("{last}@{city}.example")),
            "{}: {last} has {found:?}",
            self.name
        );
        Ok(())
    }

    fn has(&self, table: &str) -> Result<bool> {
        let exists = "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = ?1";
        Ok(self.db.query_row(exists, [table], |row| row.get(0))?)
    }

    fn row_count(&self) -> Result<i64> {
        let mut sum = 0;
        for table in TABLES {
            let count = format!("SELECT count(*) FROM {table}");
            sum += self.db.query_row(&count, [], |row| row.get::<_, i64>(0))?;
        }
        Ok(sum)
    }

    fn waiting_count(&self) -> Result<i64> {
        let count = "SELECT count(*) FROM syncline_conflicts";
        Ok(self.db.query_row(count, [], |row| row.get(0))?)
    }

    fn print(&self, select: &str) -> Result<()> {
        let mut statement = self.db.prepare(select)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            println!("  {}: {}", self.name, row.get::<_, String>(0)?);
        }
        Ok(())
    }
}

fn ensure_equal(a: &Shop, b: &Shop) -> Result<()> {
    let digest_of = |shop: &Shop| digest(&shop.db, shop.now_unix_ms);
    ensure!(digest_of(a)? == digest_of(b)?, "their digests differ");
    Ok(())
}
