"""Runs a script as the sqlite3 shell would, with Python's `sqlite3` or with `apsw`."""

import sys
from pathlib import Path

module, script = sys.argv[1:]


class Sqlite3:
    def __init__(self, file):
        import sqlite3

        self.error = sqlite3.Error
        self.db = sqlite3.connect(file, isolation_level=None)

    def load(self, extension):
        self.db.enable_load_extension(True)
        self.db.load_extension(extension)

    def rows(self, statement):
        return self.db.execute(statement).fetchall()


class Apsw:
    def __init__(self, file):
        import apsw

        self.error = apsw.Error
        self.db = apsw.Connection(file)

    def load(self, extension):
        self.db.enable_load_extension(True)
        self.db.load_extension(extension)

    def rows(self, statement):
        return list(self.db.execute(statement))


def text(value):
    return "" if value is None else str(value)


def run(client, statement):
    try:
        for row in client.rows(statement):
            print("|".join(map(text, row)))
    except client.error as error:
        message = str(error).removeprefix("SQLError: ")
        print(f"error: {message}", file=sys.stderr)


client = None
statement = ""
for line in Path(script).read_text(encoding="utf-8").splitlines():
    if not statement and line.startswith("--"):
        continue
    command, _, argument = line.partition(" ")
    if command == ".open":
        if client:
            client.db.close()
        client = {"sqlite3": Sqlite3, "apsw": Apsw}[module](argument)
    elif command == ".load":
        client.load(argument)
    elif command == ".print":
        print(argument)
    elif line:
        statement += line + "\n"
        if line.endswith(";"):
            run(client, statement)
            statement = ""
client.db.close()
