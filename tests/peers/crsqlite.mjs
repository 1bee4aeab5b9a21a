// A real cr-sqlite replica in memory: reads one SQL text a line, as JSON, and answers each with the
// rows it gives, as JSON, or with an error; null begins a new database. The argument is the folder
// that has its npm package.
import { readFile } from "node:fs/promises";
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

const packages = `${process.argv[2]}/node_modules/@vlcn.io`;
const load = (path) => import(pathToFileURL(`${packages}/${path}`).href);
// Not the package's own entry: it stores its files in a browser.
const { default: factory } = await load("crsqlite-wasm/dist/crsqlite.mjs");
const { Factory } = await load("wa-sqlite/src/sqlite-api.js");
const wasmBinary = await readFile(`${packages}/crsqlite-wasm/dist/crsqlite.wasm`);
const sqlite = Factory(await factory({ wasmBinary }));
let db = await sqlite.open_v2(":memory:");

async function run(sql) {
  const rows = [];
  if (sql === null) {
    db = await sqlite.open_v2(":memory:");
    return rows;
  }
  await sqlite.exec(db, sql, (row) => rows.push([...row]));
  return rows;
}

const plain = (_, value) => (typeof value === "bigint" ? value.toString() : value);
for await (const line of createInterface({ input: process.stdin })) {
  let answer;
  try {
    answer = { rows: await run(JSON.parse(line)) };
  } catch (error) {
    answer = { error: String(error.message ?? error) };
  }
  process.stdout.write(`${JSON.stringify(answer, plain)}\n`);
}
