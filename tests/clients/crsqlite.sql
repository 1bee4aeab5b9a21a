-- The first example of cr-sqlite's README, with this extension in a file of cr-sqlite's name. Only
-- that a site's name is random is left out.

.open readme.db
.load ./crsqlite
-- create tables as normal
create table foo (a primary key not null, b);
create table baz (a primary key not null, b, c, d);
-- update those tables to be crrs / crdts
select crsql_as_crr('foo');
select crsql_as_crr('baz');
-- insert some data / interact with tables as normal
insert into foo (a,b) values (1,2);
insert into baz (a,b,c,d) values ('a', 'woo', 'doo', 'daa');
-- ask for a record of what has changed
select "table", hex("pk"), "cid", "val", "col_version", "db_version", "site_id" = crsql_site_id(), "cl", "seq" from crsql_changes;
-- merge changes from a peer
insert into crsql_changes
  ("table", "pk", "cid", "val", "col_version", "db_version", "site_id", "cl", "seq")
  values
  ('foo', x'010905', 'b', 'thing', 5, 5, X'7096E2D505314699A59C95FABA14ABB5', 1, 0);
insert into crsql_changes ("table", "pk", "cid", "val", "col_version", "db_version", "site_id", "cl", "seq")
  values
  ('baz', x'010b0161', 'b', 123, 101, 233, X'7096E2D505314699A59C95FABA14ABB5', 1, 0);
-- check that peer's changes were applied
select * from foo;
select * from baz;
-- tear down the extension before closing the connection
select crsql_finalize();

.print -- Its tables are there as soon as it is loaded.
.open loaded.db
.load ./crsqlite
INSERT INTO crsql_tracked_peers(site_id, version, tag, event) VALUES(x'7096e2d505314699a59c95faba14abb5', 5, 0, 0);
SELECT hex(site_id), version, seq FROM crsql_tracked_peers;
SELECT key, value FROM crsql_master;
SELECT site_id = crsql_site_id(), ordinal FROM crsql_site_id;
