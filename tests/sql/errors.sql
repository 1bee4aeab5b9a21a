.load ./libsyncline
CREATE TABLE plain(a);
CREATE VIEW seen AS SELECT 1;
CREATE TABLE note(id TEXT PRIMARY KEY, a);
SELECT syncline_export();
SELECT syncline_track('plain');
SELECT syncline_track('seen');
SELECT syncline_track('missing');
SELECT syncline_track('sqlite_master');
SELECT syncline_track(7);
SELECT syncline_track();
SELECT syncline_untrack('note');
SELECT syncline_track('note');
INSERT INTO note VALUES(NULL, 1);
SELECT syncline_import('text');
SELECT syncline_import(x'');
SELECT syncline_import(x'0102030405060708090a0b0c0d0e0f');
SELECT syncline_import(x'53594e43');
SELECT syncline_import(x'53594e43ff');
SELECT syncline_import(x'53594e4301000000000000000000000000');
SELECT syncline_import(substr(syncline_export(), 1, 40));
SELECT syncline_export('text');
SELECT syncline_export(x'00');
.print -- Only a statement of the application's own may call these.
CREATE VIEW trap AS SELECT syncline_leave();
SELECT * FROM trap;
CREATE TABLE bait(id INTEGER PRIMARY KEY);
CREATE TRIGGER trap_too AFTER INSERT ON bait BEGIN SELECT syncline_leave(); END;
INSERT INTO bait VALUES(1);
.print -- After all of it the table is tracked and empty.
SELECT syncline_track('note');
SELECT count(*) FROM note;
