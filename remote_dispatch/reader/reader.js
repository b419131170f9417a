// Reads the database of OpenCode 1.18 as OpenCode does, in its own runtime (BUN_BE_BUN=1): a hundredth of a start of OpenCode.
// It never writes to the database, reads all in one transaction, and refuses whenever it is not sure of what it sees.
//   rows json|tsv STATEMENT             prints what opencode db --format json|tsv STATEMENT prints
//   export ID FILE PACKED [...]         writes what opencode export ID writes, but one line a message, which takes less room
//                                       and can be read piece by piece; PACKED is the same in gzip, or empty for none
// Exit status 93: done; 94: refused. No quote of the single kind, backtick or dollar
// is in this file: it travels as a word of a shell script.
import { Database } from "bun:sqlite"
import { closeSync, existsSync, openSync, readdirSync, writeSync } from "node:fs"
import { homedir } from "node:os"
import { isAbsolute, join } from "node:path"
import { gzip } from "node:zlib"

const DONE = 93, REFUSED = 94
const PIECE = 4 << 20
const NEWEST = "20260622202450_simplify_session_input"
const COLUMNS = {
  session: "agent cost directory id metadata model parent_id path permission project_id revert share_url slug summary_additions summary_deletions summary_diffs summary_files time_archived time_compacting time_created time_updated title tokens_cache_read tokens_cache_write tokens_input tokens_output tokens_reasoning version workspace_id",
  message: "data id session_id time_created time_updated",
  part: "data id message_id session_id time_created time_updated",
}

function expect(condition) {
  if (!condition) throw new Error("refused")
}

// Builds of another channel keep a database of their own beside the usual one: which one counts is then not known.
function database() {
  const { OPENCODE_DB: asked, XDG_DATA_HOME: base, OPENCODE_DISABLE_CHANNEL_DB: single } = process.env
  const data = join(base || join(homedir(), ".local", "share"), "opencode")
  expect(isAbsolute(data))
  if (asked) return isAbsolute(asked) ? asked : join(data, asked)
  const found = existsSync(data) ? readdirSync(data).filter((name) => name.startsWith("opencode") && name.endsWith(".db")) : []
  expect(found.includes("opencode.db") && (found.length === 1 || single === "1" || single === "true"))
  return join(data, "opencode.db")
}

function open() {
  const path = database()
  expect(existsSync(path))
  const db = new Database(path, { readonly: true })
  db.run("PRAGMA busy_timeout = 5000")
  db.run("BEGIN")
  return db
}

function write(file, bytes) {
  for (let at = 0; at < bytes.length; ) at += writeSync(file, bytes, at)
}

function rows(db, format, statement) {
  const found = db.query(statement).all()
  if (format === "json") return JSON.stringify(found, null, 2) + "\n"
  if (!found.length) return ""
  const columns = Object.keys(found[0])
  return [columns, ...found.map((row) => columns.map((name) => row[name]))].map((cells) => cells.join("\t") + "\n").join("")
}

// Where the tables are others than we know, or changed in a way that we cannot see, only OpenCode knows what they mean.
function expectKnown(db) {
  for (const [table, columns] of Object.entries(COLUMNS)) {
    const found = db.query("select name from pragma_table_info(?) order by name").all(table)
    expect(found.map((row) => row.name).join(" ") === columns)
  }
  expect(db.query("select max(id) as newest from migration").get().newest === NEWEST)
}

function json(text) {
  return text === null ? null : JSON.parse(text)
}

function modelOf(row) {
  const model = json(row.model)
  if (!model) return undefined
  expect(typeof model.id === "string" && typeof model.providerID === "string")
  return { id: model.id, providerID: model.providerID, variant: model.variant }
}

function revertOf(row) {
  const revert = json(row.revert)
  if (!revert) return undefined
  expect(/^msg/.test(revert.messageID) && (!revert.partID || /^prt/.test(revert.partID)))
  return { messageID: revert.messageID, partID: revert.partID || undefined, snapshot: revert.snapshot, diff: revert.diff }
}

function summaryOf(row) {
  if (row.summary_additions === null && row.summary_deletions === null && row.summary_files === null) return undefined
  return {
    additions: row.summary_additions ?? 0,
    deletions: row.summary_deletions ?? 0,
    files: row.summary_files ?? 0,
    diffs: json(row.summary_diffs) ?? undefined,
  }
}

function infoOf(row) {
  const permission = json(row.permission)
  return {
    id: row.id,
    slug: row.slug,
    projectID: row.project_id,
    workspaceID: row.workspace_id ?? undefined,
    directory: row.directory,
    path: row.path ?? undefined,
    parentID: row.parent_id ?? undefined,
    title: row.title,
    agent: row.agent ?? undefined,
    model: modelOf(row),
    version: row.version,
    summary: summaryOf(row),
    cost: row.cost,
    tokens: {
      input: row.tokens_input,
      output: row.tokens_output,
      reasoning: row.tokens_reasoning,
      cache: { read: row.tokens_cache_read, write: row.tokens_cache_write },
    },
    share: row.share_url ? { url: row.share_url } : undefined,
    metadata: json(row.metadata) ?? undefined,
    revert: revertOf(row),
    permission: permission ? [...permission] : undefined,
    time: {
      created: row.time_created,
      updated: row.time_updated,
      compacting: row.time_compacting ?? undefined,
      archived: row.time_archived ?? undefined,
    },
  }
}

function* exported(db, id) {
  const session = db.query("select * from session where id = ?").get(id)
  expect(session)
  yield "{\"info\":" + JSON.stringify(infoOf(session)) + ",\"messages\":["
  const parts = db.query("select id, session_id, message_id, data from part where message_id = ? order by id")
  const messages = db.query("select id, time_created from message where session_id = ? order by time_created, id").all(id)
  const message = db.query("select id, session_id, data from message where id = ?")
  expect(messages.every((one) => one.time_created >= 0))
  let before = "\n"
  for (const one of messages) {
    const row = message.get(one.id)
    const info = { ...json(row.data), id: row.id, sessionID: row.session_id }
    const own = parts.all(row.id).map((part) => (
      { ...json(part.data), id: part.id, sessionID: part.session_id, messageID: part.message_id }))
    yield before + JSON.stringify({ info, parts: own })
    before = ",\n"
  }
  yield messages.length ? "\n]}\n" : "]}\n"
}

function* pieces(texts) {
  let text = ""
  for (const more of texts) {
    text += more
    if (text.length < PIECE) continue
    yield Buffer.from(text)
    text = ""
  }
  yield Buffer.from(text)
}

// Each piece becomes a gzip member of its own, some of them at the same time.
async function store(texts, file, packed) {
  const target = openSync(file, "w", 0o600)
  const packedTarget = packed && openSync(packed, "w", 0o600)
  const waiting = []
  const settle = async (most) => {
    while (waiting.length > most) write(packedTarget, await waiting.shift())
  }
  for (const piece of pieces(texts)) {
    if (packed) waiting.push(new Promise((yes, no) => gzip(piece, { level: 3 }, (bad, good) => (bad ? no(bad) : yes(good)))))
    write(target, piece)
    await settle(3)
  }
  await settle(0)
  // Some file systems tell only now that they have no room.
  closeSync(target)
  if (packed) closeSync(packedTarget)
}

async function main(word, ...values) {
  const db = open()
  if (word === "rows") return write(1, Buffer.from(rows(db, ...values)))
  expect(word === "export")
  expectKnown(db)
  for (let at = 0; at < values.length; at += 3) await store(exported(db, values[at]), values[at + 1], values[at + 2])
}

main(...process.argv.slice(1)).then(() => process.exit(DONE), () => process.exit(REFUSED))
