-- Run by the sqlite3 shell as it is, and by run.py and run.js, which know the three commands that
-- are used here. A statement ends with a semicolon at the end of a line. Nothing is called before a
-- connection is closed.

.print -- One device tracks its tables and sends all of them.
.open a.db
.load ./libsyncline
PRAGMA journal_mode = WAL;
CREATE TABLE todo(id TEXT PRIMARY KEY, what TEXT NOT NULL, list TEXT, spot);
CREATE TABLE note(id INTEGER PRIMARY KEY, body TEXT) STRICT;
INSERT INTO todo VALUES('x', 'buy bread', 'home', 'a ');
INSERT INTO note VALUES(1, 'zażółć 🌍'), (-7, NULL);
SELECT syncline_track('todo');
SELECT syncline_track('note', '{"ids": "shared"}');
SELECT syncline_track('todo');
SELECT length(syncline_site_id()), length(syncline_digest()), syncline_version();
ATTACH 'mail.db' AS mail;
CREATE TABLE mail.letter(name TEXT PRIMARY KEY, content BLOB);
INSERT INTO mail.letter SELECT 'all', syncline_export();

.print -- Another one takes them in, and answers.
.open b.db
.load ./libsyncline
ATTACH 'mail.db' AS mail;
SELECT syncline_import(content) FROM mail.letter WHERE name = 'all';
SELECT syncline_import(content) FROM mail.letter WHERE name = 'all';
SELECT id, what FROM todo;
SELECT id, body, typeof(body) FROM note ORDER BY id;
UPDATE todo SET what = 'buy rolls' WHERE id = 'x';
INSERT INTO todo VALUES('y', 'from b', 'home', NULL);
DELETE FROM note WHERE id = -7;

.print -- A program without the extension writes meanwhile.
.open a.db
INSERT INTO todo(id, what) VALUES('plain', 'from plain SQL');
UPDATE todo SET list = 'shop' WHERE id = 'x';
SELECT syncline_version();

.print -- Each gets what it has not seen, and both are equal.
.open a.db
.load ./libsyncline
ATTACH 'mail.db' AS mail;
SELECT length(syncline_version_vector()) > 0;
INSERT INTO mail.letter SELECT 'seen by a', syncline_version_vector();
.open b.db
.load ./libsyncline
ATTACH 'mail.db' AS mail;
SELECT length(syncline_version_vector()) > 0;
INSERT INTO mail.letter SELECT 'to a', syncline_export(content) FROM mail.letter WHERE name = 'seen by a';
INSERT INTO mail.letter SELECT 'seen by b', syncline_version_vector();
.open a.db
.load ./libsyncline
ATTACH 'mail.db' AS mail;
SELECT syncline_import(content) FROM mail.letter WHERE name = 'to a';
INSERT INTO mail.letter SELECT 'to b', syncline_export(content) FROM mail.letter WHERE name = 'seen by b';
INSERT INTO mail.letter SELECT 'digest', syncline_digest();
SELECT id, what, list FROM todo ORDER BY id;
SELECT count(*) AS notes FROM note;
.open b.db
.load ./libsyncline
ATTACH 'mail.db' AS mail;
SELECT syncline_import(content) FROM mail.letter WHERE name = 'to b';
SELECT id, what, list FROM todo ORDER BY id;
SELECT 'equal', syncline_digest() = content AS is_equal FROM mail.letter WHERE name = 'digest';

.print -- What is wrong is said, and nothing is changed by it.
SELECT syncline_import(x'00');
SELECT syncline_track('nowhere');
BEGIN;
INSERT INTO todo(id, what) VALUES('z', 'kept');
SELECT syncline_import(zeroblob(40));
COMMIT;
SELECT what FROM todo WHERE id = 'z';

.print -- cr-sqlite's functions: packed keys, lists in an order, a schema that grows.
SELECT hex(crsql_pack_columns(1, 'a', NULL, x'00', -1));
SELECT cell, typeof(cell) FROM crsql_unpack_columns WHERE package = crsql_pack_columns(1, 'a', NULL);
SELECT crsql_fract_as_ordered('todo', 'spot', 'list');
INSERT INTO todo VALUES('end', 'last', 'home', 1);
INSERT INTO todo VALUES('begin', 'first', 'home', -1);
INSERT INTO todo_fractindex(id, what, list, after_id) VALUES('middle', 'second', 'home', 'begin');
SELECT id, spot FROM todo WHERE list = 'home' ORDER BY spot;
SELECT crsql_automigrate('CREATE TABLE IF NOT EXISTS todo(id TEXT PRIMARY KEY, what TEXT NOT NULL, list TEXT, spot, done DEFAULT 0); CREATE TABLE IF NOT EXISTS note(id INTEGER PRIMARY KEY, body TEXT) STRICT;');
SELECT id, done FROM todo WHERE list = 'home' ORDER BY spot;
SELECT crsql_finalize();
UPDATE todo SET done = 1 WHERE id = 'begin';
SELECT length(syncline_digest());

.print -- CRRs: two files exchange the rows of crsql_changes.
.open c.db
.load ./libsyncline
CREATE TABLE item(id INTEGER PRIMARY KEY NOT NULL, name TEXT, price INTEGER);
SELECT crsql_as_crr('item');
INSERT INTO item VALUES(1, 'tea', 3), (2, 'milk', 1), (3, 'salt', 2);
SELECT crsql_db_version(), length(crsql_site_id());
ATTACH 'mail.db' AS mail;
CREATE TABLE mail.change AS SELECT * FROM crsql_changes;
.open d.db
.load ./libsyncline
CREATE TABLE item(id INTEGER PRIMARY KEY NOT NULL, name TEXT, price INTEGER);
SELECT crsql_as_crr('item');
ATTACH 'mail.db' AS mail;
INSERT INTO crsql_changes SELECT * FROM mail.change;
SELECT * FROM item;
UPDATE item SET price = 4 WHERE id = 1;
DELETE FROM item WHERE id = 2;
SELECT "table", hex(pk), cid, val, col_version, cl FROM crsql_changes WHERE site_id = crsql_site_id();
DELETE FROM mail.change;
INSERT INTO mail.change SELECT * FROM crsql_changes;
.open c.db
INSERT INTO item VALUES(4, 'from plain SQL', 9);
.open c.db
.load ./libsyncline
ATTACH 'mail.db' AS mail;
INSERT INTO crsql_changes SELECT * FROM mail.change;
SELECT * FROM item;
SELECT crsql_db_version() > 0, count(*) > 0 FROM crsql_changes;
SELECT crsql_begin_alter('item');
ALTER TABLE item ADD COLUMN shelf TEXT;
SELECT crsql_commit_alter('item');
UPDATE item SET shelf = 'top' WHERE id = 1;
SELECT cid, val FROM crsql_changes WHERE cid = 'shelf';

.print -- What breaks a constraint waits, and comes back.
.open e.db
.load ./libsyncline
ATTACH 'mail.db' AS mail;
CREATE TABLE person(id TEXT PRIMARY KEY, mail TEXT UNIQUE, low INT, high INT, CHECK(low <= high));
CREATE TABLE visit(id TEXT PRIMARY KEY, person TEXT REFERENCES person(id));
INSERT INTO person VALUES('ann', 'ann@home', 1, 5), ('bob', 'bob@home', 1, 5);
SELECT syncline_track('person'), syncline_track('visit');
INSERT INTO mail.letter SELECT 'all of e', syncline_export();
.open f.db
.load ./libsyncline
ATTACH 'mail.db' AS mail;
SELECT syncline_import(content) FROM mail.letter WHERE name = 'all of e';
INSERT INTO person VALUES('eve', 'same@home', 1, 5);
UPDATE person SET low = 4 WHERE id = 'ann';
INSERT INTO visit VALUES('v', 'bob');
SELECT length(syncline_version_vector()) > 0;
INSERT INTO mail.letter SELECT 'all of f', syncline_export();
.open e.db
.load ./libsyncline
ATTACH 'mail.db' AS mail;
INSERT INTO person VALUES('joe', 'same@home', 1, 5);
UPDATE person SET high = 2 WHERE id = 'ann';
DELETE FROM person WHERE id = 'bob';
SELECT syncline_import(content) > 0 FROM mail.letter WHERE name = 'all of f';
SELECT mail FROM person ORDER BY mail;
SELECT count(*) FROM visit;
SELECT table_name, constraint_name FROM syncline_conflicts ORDER BY 1, 2;
INSERT INTO person VALUES('bob', 'bob@home', 1, 5);
UPDATE person SET mail = 'own@home' WHERE mail = 'same@home';
SELECT json_extract(syncline_status(), '$.tables.person.options'), length(syncline_digest());
SELECT mail FROM person ORDER BY mail;
SELECT * FROM visit;
SELECT table_name, constraint_name FROM syncline_conflicts ORDER BY 1, 2;

.print -- A file can be given back.
.open b.db
.load ./libsyncline
SELECT syncline_untrack('note');
SELECT syncline_leave();
SELECT count(*) AS traces FROM sqlite_master WHERE name LIKE 'syncline%';
