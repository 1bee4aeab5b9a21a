.print -- One device tracks a table that has rows, and exports.
.open a.db
.load ./libsyncline
CREATE TABLE todo(id INTEGER PRIMARY KEY, what TEXT NOT NULL, done INTEGER NOT NULL DEFAULT 0);
CREATE INDEX todo_by_done ON todo(done);
INSERT INTO todo(what) VALUES('buy bread'), ('call mum');
SELECT syncline_track('todo');
SELECT syncline_track('todo');
SELECT length(syncline_site_id()), length(syncline_digest());
SELECT writefile('changes', syncline_export()) > 0;

.print -- Another one takes it in: the table, its index and its rows.
.open b.db
.load ./libsyncline
SELECT syncline_import(readfile('changes'));
SELECT name FROM sqlite_master WHERE name LIKE 'todo%' ORDER BY name;
SELECT * FROM todo;
SELECT 'again', syncline_import(readfile('changes'));

.print -- It answers with what the first has not seen.
UPDATE todo SET done = 1 WHERE id = 2;
DELETE FROM todo WHERE id = 1;
INSERT INTO todo(id, what) VALUES(7, 'water plants');
.open a.db
.load ./libsyncline
UPDATE todo SET what = 'call mum and dad' WHERE id = 2;
SELECT writefile('seen', syncline_version_vector()) > 0;
.open b.db
.load ./libsyncline
SELECT writefile('answer', syncline_export(readfile('seen'))) > 0;
SELECT writefile('seen', syncline_version_vector()) > 0;
.open a.db
.load ./libsyncline
SELECT syncline_import(readfile('answer'));
SELECT writefile('changes', syncline_export(readfile('seen'))) > 0;
SELECT writefile('digest', syncline_digest()) > 0;
SELECT * FROM todo;
.open b.db
.load ./libsyncline
SELECT syncline_import(readfile('changes'));
SELECT * FROM todo;
SELECT 'equal', syncline_digest() = CAST(readfile('digest') AS TEXT);

.print -- A shell without the extension writes; its writes are not lost.
.open b.db
INSERT INTO todo(what) VALUES('plain SQL');
UPDATE todo SET done = 1 WHERE what LIKE 'water%';
.open b.db
.load ./libsyncline
SELECT writefile('changes', syncline_export()) > 0;
SELECT writefile('digest', syncline_digest()) > 0;
.open a.db
.load ./libsyncline
SELECT syncline_import(readfile('changes'));
SELECT * FROM todo;
SELECT 'equal', syncline_digest() = CAST(readfile('digest') AS TEXT);

.print -- A table and a file can be given back.
SELECT syncline_untrack('todo');
SELECT syncline_leave();
SELECT count(*) FROM sqlite_master WHERE sql LIKE '%syncline%';
SELECT * FROM todo;
