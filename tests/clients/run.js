// Runs a script as the sqlite3 shell would, with `better-sqlite3` or with Node's own `node:sqlite`.

const { readFileSync } = require("node:fs");

const [module_, script] = process.argv.slice(2);

const open = {
  "better-sqlite3": (file) => {
    const Database = require("better-sqlite3");
    const db = new Database(file);
    return {
      load: (extension) => db.loadExtension(extension),
      rows: (sql) => {
        const statement = db.prepare(sql);
        return statement.reader ? statement.raw().all() : (statement.run(), []);
      },
      close: () => db.close(),
    };
  },
  "node:sqlite": (file) => {
    const { DatabaseSync } = require("node:sqlite");
    const db = new DatabaseSync(file, { allowExtension: true });
    return {
      load: (extension) => db.loadExtension(extension),
      rows: (sql) => db.prepare(sql).all().map(Object.values),
      close: () => db.close(),
    };
  },
}[module_];

const text = (value) => (value === null ? "" : String(value));

function run(client, statement) {
  try {
    for (const row of client.rows(statement)) console.log(row.map(text).join("|"));
  } catch (error) {
    console.error(`error: ${error.message}`);
  }
}

let client;
let statement = "";
for (const line of readFileSync(script, "utf8").split("\n")) {
  if (!statement && line.startsWith("--")) continue;
  const [command, ...rest] = line.split(" ");
  const argument = rest.join(" ");
  if (command === ".open") {
    if (client) client.close();
    client = open(argument);
  } else if (command === ".load") {
    client.load(argument);
  } else if (command === ".print") {
    console.log(argument);
  } else if (line) {
    statement += `${line}\n`;
    if (line.endsWith(";")) {
      run(client, statement);
      statement = "";
    }
  }
}
client.close();
