"""Takes a changeset in, changes two rows the first time, and writes what the other side lacks."""

import sqlite3
import sys
from pathlib import Path

database, changes, answer, seen, digest = sys.argv[1:]
is_first_time = not Path(database).exists()
connection = sqlite3.connect(database)
connection.enable_load_extension(True)
connection.load_extension("./libsyncline")


def value(sql, *arguments):
    """Returns the one value of a statement's one row."""
    return connection.execute(sql, arguments).fetchone()[0]


value("SELECT syncline_import(?)", Path(changes).read_bytes())
connection.commit()
before = value("SELECT syncline_version_vector()")
if is_first_time:
    connection.execute("UPDATE todo SET done = 1 WHERE id = 'a'")
    connection.execute("INSERT INTO todo(id, what) VALUES('d', 'from Python')")
    connection.execute("DELETE FROM todo WHERE id = 'b'")
    connection.commit()
    Path(answer).write_bytes(value("SELECT syncline_export(?)", before))
    connection.commit()
Path(seen).write_bytes(value("SELECT syncline_version_vector()"))
Path(digest).write_text(value("SELECT syncline_digest()"))
connection.commit()
print(f"python3 with SQLite {sqlite3.sqlite_version}:")
for row in connection.execute("SELECT * FROM todo ORDER BY id"):
    print("  ", *row)
