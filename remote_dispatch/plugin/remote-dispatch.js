// remote-dispatch inside OpenCode: the tool `remote_dispatch` and the command `/dispatch`.
//
// One plain file without dependencies. Whatever concerns hosts, SSH and transcripts is done by the command
// `remote-dispatch`; this file asks it, shows what it reports, and tells the conversation what came home.
// Measured with OpenCode 1.18; docs/opencode.md says what is promised.

import { spawn } from "node:child_process"
import { createHash } from "node:crypto"
import { EventEmitter } from "node:events"
import fs from "node:fs"
import os from "node:os"
import path from "node:path"
import { createInterface } from "node:readline"
import { isMainThread } from "node:worker_threads"

const TOOL = "remote_dispatch"
const NAMES_FRESH_MS = 5_000
const NAMES_PATIENCE_MS = 3_000
const PROGRESS_EVERY_MS = 1_000
const PROMPT_PATIENCE_MS = 5_000
const ABORT_PATIENCE_MS = 120
const AFTER_ABORT_MS = 500
const DISPOSE_PATIENCE_MS = 4_000
const FIRST_RETRY_MS = 15_000
const LONGEST_RETRY_MS = 300_000
const BUS_TRIES = 20
const BUS_TRY_MS = 25
const STATUS_LENGTH = 100

// The TUI runs plugins in a worker. Small commands, such as `export`, load them too, and must not be held up.
const COMMAND_WORD = isMainThread
  ? process.argv.slice(2).find((word) => ["run", "serve", "web", "acp"].includes(word))
  : "tui"
const TAKES_PROMPTS = COMMAND_WORD !== undefined
const STAYS_OPEN = TAKES_PROMPTS && COMMAND_WORD !== "run"

const PROPERTIES = {
  host: { type: "string", description: "The name of the host." },
  mode: {
    type: "string",
    enum: ["one-way", "round-trip"],
    description:
      "one-way (the default): the conversation goes on there and stays there. round-trip: it comes back with what was done.",
  },
  task: {
    type: "string",
    description: "What to do there, complete, in the user's own words where possible. Without it the conversation goes on where it is.",
  },
  directory: { type: "string", description: "The working directory on the host. Only when the user names one." },
  wait: {
    type: "boolean",
    description: "round-trip only: keep this call open until it is back. Only for a task of a minute or two.",
  },
  help: { type: "boolean", description: "Explain how hosts are added, and do nothing else." },
}
const SCHEMA = { type: "object", properties: PROPERTIES, required: [], additionalProperties: false }

const SLASH_COMMAND = {
  description: "Hand this conversation over to another machine: /dispatch HOST what to do there",
  template: `Hand this conversation over with the tool \`${TOOL}\`. The user's words, of which the first is the host: $ARGUMENTS
Take the mode round-trip when the words ask for something to come back, else one-way.`,
}

const stateFolder = () =>
  path.join(process.env.XDG_STATE_HOME || path.join(os.homedir(), ".local", "state"), "remote-dispatch", "plugin")
const delay = (ms) => new Promise((resolve) => setTimeout(resolve, ms).unref())

// --- the command

const failed = (message, hint) => ({ ok: false, data: null, error: { message, hint } })
const NOT_INSTALLED = failed(
  "the command `remote-dispatch` cannot be started",
  "the user installs it, then runs `remote-dispatch plugin install` again",
)
const NO_ANSWER = failed("`remote-dispatch` ended without an answer", "`remote-dispatch list --refresh` in a terminal shows how things stand")

/** The installed `remote-dispatch`. Arguments are a list, never a shell's text. */
class Command {
  constructor(argv, directory) {
    this.argv = argv
    this.directory = directory
    this.running = new Set()
  }

  /** Run it to its end. `onLine` gets each JSON line before the envelope. Never rejects: every end is an envelope. */
  run(words, { input = "", onLine = () => {} } = {}) {
    return new Promise((resolve) => {
      const child = spawn(this.argv[0], [...this.argv.slice(1), ...words], {
        cwd: this.directory,
        // A session of its own: Ctrl-C in the terminal is for OpenCode.
        detached: true,
        stdio: ["pipe", "pipe", "ignore"],
        env: { REMOTE_DISPATCH_OPENCODE: process.execPath, ...process.env },
      })
      let envelope = null
      const end = (answer) => {
        this.running.delete(child)
        resolve(answer)
      }
      this.running.add(child)
      createInterface({ input: child.stdout }).on("line", (line) => {
        const value = parsed(line)
        if (value?.schema) envelope = value
        else if (value) onLine(value)
      })
      child.stdin.on("error", () => {})
      child.on("error", () => end(NOT_INSTALLED))
      child.on("close", () => end(envelope ?? NO_ANSWER))
      child.stdin.end(input)
    }).catch(() => NOT_INSTALLED)
  }

  /** Stop waiting: what runs on hosts goes on. */
  interrupt() {
    for (const child of this.running) child.kill("SIGINT")
  }
}

function parsed(line) {
  try {
    return JSON.parse(line)
  } catch {
    return null
  }
}

/** The host names, as the hosts files have them now. */
class Names {
  constructor(command) {
    this.command = command
    this.known = []
    this.asked = null
    this.answered = -Infinity
  }

  refresh() {
    this.asked ??= this.command.run(["hosts", "list", "--names", "--json"]).then((envelope) => {
      this.known = envelope.data?.names ?? this.known
      this.answered = performance.now()
      this.asked = null
    })
    return this.asked
  }

  /** Wait for the first answer only; later ones are for the next request. */
  async current() {
    if (performance.now() - this.answered > NAMES_FRESH_MS) {
      const answer = this.refresh()
      if (this.answered === -Infinity) await Promise.race([answer, delay(NAMES_PATIENCE_MS)])
    }
    return this.known
  }
}

// --- words

const listed = (names) => (names.length ? names.map((name) => `\`${name}\``).join(", ") : "none yet")

const description = (names) =>
  `Hand this whole conversation over to another machine, where OpenCode goes on with it. Hosts: ${listed(names)}.
Use it only when the user asks for the work to be done, continued or looked into on one of these hosts; it is not for
single commands. Once it says that the conversation was handed over, end your turn: do not work on the same task here.`

const helpText = (names) =>
  `Hosts that can be named now: ${listed(names)}.
The user adds one in a terminal with \`remote-dispatch hosts add NAME ADDRESS\` (an address as for ssh, or an alias of ~/.ssh/config); it can be used at once. \`remote-dispatch hosts list\` shows them, \`remote-dispatch hosts path\` where they are kept.
What is under way: \`remote-dispatch list\`; \`remote-dispatch logs -f NAME\` follows, \`collect NAME\` brings home, \`cancel NAME\` stops.`

const oneLine = (text, length) => {
  const line = String(text ?? "").replace(/\s+/g, " ").trim()
  return line.length <= length ? line : `${line.slice(0, length - 1)}…`
}

/** How things stand after one more line of the command's stream. */
function statusAfter(line, before) {
  switch (line.type) {
    case "step":
      return { ...before, now: line.text, isStep: true }
    case "text":
      return { ...before, now: line.text, isStep: false }
    case "tool":
      return { ...before, now: line.text ? `${line.tool}: ${line.text}` : line.tool, isStep: false }
    case "todo":
      // A tool is heard of when it ends: until then "it imports" would be wrong.
      return { todo: `todo ${line.done}/${line.total}`, now: before.isStep ? "" : before.now, isStep: false }
    case "error":
      return { ...before, now: `error: ${line.text}`, isStep: false }
    default:
      return before
  }
}

const statusLine = ({ now, todo }) => oneLine([todo, now].filter(Boolean).join(" · "), STATUS_LENGTH)

const errorText = ({ message, hint }) => (hint ? `${message} (${hint})` : message)

const isEnd = ({ state }) => ["done", "failed", "cancelled", "lost"].includes(state)

/** Whether it is still to come home by itself. */
const isOut = (data) => data.mode === "round-trip" && data.collected === "none" && !isEnd(data)

const messages = (count) => `${count} ${count === 1 ? "message" : "messages"}`

/** What came of it, for the user; with the last answer in full where the window does not show what came home. */
function account(data, error, isShown) {
  const { name, host, new_messages: count } = data
  const came = count ? `; ${messages(count)} came home` : ""
  const ended = {
    done: `${host} has finished \`${name}\`${came}.`,
    cancelled: `\`${name}\` was cancelled on ${host}${came}.`,
    lost: `\`${name}\` was lost on ${host}${came}: ${data.detail}.`,
  }
  const reason = data.detail ?? error?.message ?? data.state
  const lines = [ended[data.state] ?? `\`${name}\` failed on ${host}${came}: ${reason}.`]
  if (data.state !== "done") lines.push(`\`remote-dispatch logs ${name}\` shows what happened there.`)
  if (data.copy_session_id)
    lines.push(`This conversation went on meanwhile, so the result is a session of its own: \`opencode -s ${data.copy_session_id}\`.`)
  else if (count && !isShown) lines.push(`All of it: \`opencode -s ${data.session_id}\`.`)
  if (data.code?.branch)
    lines.push(`What was done to the code is the branch \`${data.code.branch}\` here: \`remote-dispatch apply ${name}\` brings it into the working tree.`)
  if (error && data.state === "done") lines.push(`Note: ${errorText(error)}.`)
  const isSaid = (warning) => data.copy_session_id && warning.includes("session of its own")
  for (const warning of (data.warnings ?? []).filter((one) => !isSaid(one))) lines.push(`Note: ${warning}.`)
  if (data.answer && !isShown) lines.push("", data.answer)
  return lines.join("\n")
}

/** The same for the model: where the work was done, and what is left to do. */
function briefing(data) {
  const { host, remote_directory: there, local_directory: here } = data
  const where = data.copy_session_id
    ? `What was done on ${host} is in the session ${data.copy_session_id}, not above; its last answer is quoted here.`
    : data.new_messages
      ? `The messages between the hand-over and this one were made on ${host}.`
      : `Nothing came home from ${host}.`
  const next =
    data.state === "done"
      ? "Go on with what came home; do not repeat the work"
      : "Tell the user plainly what happened and what can be done; do not do the work here unless the user asks"
  const code = data.code?.branch
    ? ` What was done to the code is the branch \`${data.code.branch}\` here; the working tree is as it was: \`remote-dispatch diff ${data.name}\` shows it, and only when the user wants it, \`remote-dispatch apply ${data.name}\` brings it in.`
    : ""
  return `${where} That is another machine${there ? `, the directory there was ${there}` : ""}: its files are not here. You are in ${here} again.${code}
${next}, and do not hand over again unless the user asks.`
}

const follow = (name) =>
  name
    ? `\`remote-dispatch logs -f ${name}\` follows it, \`remote-dispatch cancel ${name}\` stops it`
    : "`remote-dispatch list` shows it"

const leftOneWay = ({ host, name, remote_directory: there }) =>
  `This conversation was handed over to ${host} as \`${name}\` and goes on there${there ? ` in ${there}` : ""}: ${follow(name)}, \`remote-dispatch collect ${name}\` brings it home. Tell the user so in one sentence and end your turn: the work is done there, not here.`

const leftAndComesBack = ({ host, name }) =>
  `This conversation was handed over to ${host} as \`${name}\` and comes back by itself when the work there is done; you are woken then. Until then ${follow(name)}. Tell the user so in one sentence and end your turn: do not wait, and do not work on it here.`

const afterAbort = (host, name) => `The turn was stopped here; the hand-over to ${host} goes on: ${follow(name)}.`

const notHome = (name, error) =>
  `\`${name}\` is not home: ${errorText(error)}. \`remote-dispatch resume ${name}\` goes on with it.`

// --- the conversation

/** One session, as far as the plugin reads and writes it. */
class Conversation {
  constructor(input, sessionID) {
    this.input = input
    this.session = input.client.session
    this.id = sessionID
  }

  async messages(query = {}) {
    return (await this.session.messages({ path: { id: this.id }, query })).data ?? []
  }

  async ids() {
    return new Set((await this.messages()).map((message) => message.info.id))
  }

  /** Agent, model and variant of the newest prompt: a prompt without them would change what the session uses. */
  async choice() {
    const info = (await this.messages()).findLast((message) => message.info.role === "user")?.info
    if (!info?.model) return {}
    const { providerID, modelID, variant } = info.model
    return { agent: info.agent, model: { providerID, modelID }, ...(variant ? { variant } : {}) }
  }

  /** Start a turn. */
  async wake(visible, hidden) {
    const parts = [{ type: "text", text: visible }, { type: "text", text: hidden, synthetic: true }]
    await this.session.promptAsync({ path: { id: this.id }, body: { ...(await this.choice()), parts } })
  }

  /** Add a prompt that the turn under way answers with its next step. */
  add(visible, hidden) {
    return this.put([{ type: "text", text: visible }, { type: "text", text: hidden, synthetic: true }])
  }

  /** Show something to the user that no model reads. */
  show(text) {
    return this.put([{ type: "text", text, ignored: true }])
  }

  async put(parts) {
    const prompt = this.session.prompt({ path: { id: this.id }, body: { noReply: true, ...(await this.choice()), parts } })
    // In a turn of its own session a prompt can wait for ever.
    await Promise.race([prompt, delay(PROMPT_PATIENCE_MS)])
  }

  /**
   * An open TUI never reads a session again: announce the messages that another process imported; return how many.
   * This needs OpenCode's process-wide event bus, which is no public interface. Without it nothing is announced.
   */
  async announce(known) {
    const bus = await findBus(this.session, this.id)
    if (!bus) return 0
    // One that is being written now announces itself, and newer.
    const isWhole = ({ role, time, error }) => role === "user" || time.completed || error
    const fresh = (await this.messages({ limit: 100 })).filter(({ info }) => !known.has(info.id) && isWhole(info))
    const { directory, project } = this.input
    const stamp = `evt_${Date.now().toString(16)}${TOOL}`
    let number = 0
    const emit = (type, properties) =>
      bus.emit("event", { directory, project: project?.id, payload: { id: `${stamp}${number++}`, type, properties } })
    for (const { info, parts } of fresh) {
      emit("message.updated", { sessionID: this.id, info })
      for (const part of parts) emit("message.part.updated", { sessionID: this.id, part, time: Date.now() })
    }
    return fresh.length
  }
}

let bus = null

/** Catch the emitter in the act: any write to a session makes it emit. */
async function findBus(session, id) {
  if (bus) return bus
  const emit = EventEmitter.prototype.emit
  EventEmitter.prototype.emit = function (name, event) {
    if (name === "event" && typeof event?.payload?.type === "string") bus = this
    return emit.apply(this, arguments)
  }
  try {
    const { data } = await session.get({ path: { id } })
    await session.update({ path: { id }, body: { title: data.title } })
    for (let tries = 0; tries < BUS_TRIES && !bus; tries++) await delay(BUS_TRY_MS)
  } finally {
    EventEmitter.prototype.emit = emit
  }
  return bus
}

// --- the open call

/** Shows a line in the running call. OpenCode 1.18 draws a tool's input only, so the line stands there for a while. */
class OpenCall {
  constructor(client, ctx, args) {
    this.client = client
    this.ctx = ctx
    this.args = args
    this.start = Date.now()
    this.shown = ""
    this.isClosed = false
    this.writing = Promise.resolve()
  }

  /** Show a line, once a second at most: OpenCode keeps every write. */
  show(line) {
    this.next = line
    this.timer ??= setTimeout(() => {
      this.timer = null
      if (!this.isClosed && this.next !== this.shown) this.write(this.next)
    }, PROGRESS_EVERY_MS)
  }

  /** Put the input back as the model wrote it. */
  async close() {
    this.isClosed = true
    clearTimeout(this.timer)
    if (this.shown) this.write("")
    await this.writing
  }

  write(line) {
    this.shown = line
    this.writing = this.writing.then(() => this.patch(line)).catch(() => {})
  }

  async patch(line) {
    const { sessionID, messageID, callID } = this.ctx
    const found = await this.client.session.message({ path: { id: sessionID, messageID } })
    const part = found.data?.parts.find((one) => one.callID === callID)
    if (!part || !["pending", "running"].includes(part.state.status)) return
    const state = {
      status: "running",
      input: line ? { ...this.args, status: line } : this.args,
      title: line,
      metadata: { output: line },
      time: { start: part.state.time?.start ?? this.start },
    }
    await this.client._client.request({
      method: "PATCH",
      url: "/session/{id}/message/{messageID}/part/{partID}",
      path: { id: sessionID, messageID, partID: part.id },
      headers: { "Content-Type": "application/json" },
      body: { ...part, state },
    })
  }
}

// --- what is waited for

/** Files that say which process waits for which dispatch, so that the next start goes on where one was closed. */
class Waiting {
  constructor(directory) {
    this.folder = stateFolder()
    this.directory = directory
  }

  note(one) {
    this.write({ ...one, directory: this.directory, owner: { pid: process.pid, start: startOf(process.pid) } })
  }

  forget(name) {
    fs.rmSync(this.file(name), { force: true })
  }

  /** Let go of all that this process waits for in this directory. */
  release() {
    for (const one of this.here()) if (one.owner?.pid === process.pid) this.write({ ...one, owner: null })
  }

  /** Take over what nobody waits for any more in this directory. */
  adopt() {
    return this.here().filter((one) => !isAlive(one.owner) && this.claim(one))
  }

  /** Of several that see it, one renames it; what that one then holds tells whether it came too late. */
  claim({ name }) {
    const taken = `${this.file(name)}.${process.pid}`
    try {
      fs.renameSync(this.file(name), taken)
    } catch {
      return false
    }
    const one = contentOf(taken)
    const isFree = one !== null && !isAlive(one.owner)
    if (isFree) this.note(one)
    else fs.renameSync(taken, this.file(name))
    fs.rmSync(taken, { force: true })
    return isFree
  }

  here() {
    const entries = fs.existsSync(this.folder) ? fs.readdirSync(this.folder) : []
    return entries
      .filter((entry) => entry.endsWith(".json"))
      .map((entry) => contentOf(path.join(this.folder, entry)))
      .filter((one) => one?.directory === this.directory)
  }

  write(one) {
    fs.mkdirSync(this.folder, { recursive: true, mode: 0o700 })
    const part = `${this.file(one.name)}.${process.pid}.part`
    fs.writeFileSync(part, JSON.stringify(one), { mode: 0o600 })
    fs.renameSync(part, this.file(one.name))
  }

  file(name) {
    return path.join(this.folder, `${name}.json`)
  }
}

function contentOf(file) {
  try {
    return JSON.parse(fs.readFileSync(file, "utf8"))
  } catch {
    return null
  }
}

/** A process id alone comes again. */
function startOf(pid) {
  try {
    return fs.readFileSync(`/proc/${pid}/stat`, "utf8").split(") ").at(-1).split(" ")[19]
  } catch {
    return null
  }
}

function isAlive(owner) {
  if (!owner) return false
  try {
    process.kill(owner.pid, 0)
  } catch (error) {
    return error.code === "EPERM"
  }
  return startOf(owner.pid) === owner.start
}

// --- the tool

class Plugin {
  constructor(input, options) {
    this.input = input
    this.command = new Command(options?.command ?? ["remote-dispatch"], input.directory)
    this.names = new Names(this.command)
    this.waiting = new Waiting(input.directory)
    this.leaving = new Set()
    this.isDisposed = false
  }

  start() {
    if (TAKES_PROMPTS) this.names.refresh()
    if (STAYS_OPEN) this.adopt().catch(() => {})
  }

  /** Go on with what an OpenCode that was closed was waiting for. */
  async adopt() {
    await Promise.all(this.waiting.adopt().map((one) => this.goOn(one)))
  }

  async execute(args, ctx) {
    const names = await this.names.current()
    if (args.help) return helpText(names)
    const wrong = problemWith(args)
    if (wrong) return `Nothing was handed over: ${wrong}.`
    const session = await this.input.client.session.get({ path: { id: ctx.sessionID } })
    if (session.data?.parentID) return "Nothing was handed over: this is a sub-agent's session, and only the main conversation can go."
    await ctx.ask({ permission: TOOL, patterns: [args.host], always: [args.host], metadata: {} })
    return await this.handOver(args, ctx)
  }

  async handOver(args, ctx) {
    const conversation = new Conversation(this.input, ctx.sessionID)
    const trip = { conversation, known: await conversation.ids(), isAborted: false }
    const call = new OpenCall(this.input.client, ctx, args)
    const isWaiting = args.mode === "round-trip" && (args.wait === true || !STAYS_OPEN)
    const sending = this.send(args, trip, isWaiting, (line) => call.show(line))
    const settled = sending.then((envelope) => this.settle(args, trip, envelope, () => call.close()))
    if (!isWaiting) this.leave(settled)
    const aborted = new Promise((resolve) => {
      if (ctx.abort.aborted) resolve(null)
      ctx.abort.addEventListener("abort", () => resolve(null), { once: true })
    })
    const outcome = await Promise.race([settled, aborted])
    if (outcome !== null) return outcome
    trip.isAborted = true
    this.note(trip)
    // OpenCode waits a quarter of a second for the text of an aborted call.
    await Promise.race([call.close(), delay(ABORT_PATIENCE_MS)])
    const text = afterAbort(args.host, trip.name)
    // The TUI does not show what a tool returns.
    setTimeout(() => conversation.show(text).catch(() => {}), AFTER_ABORT_MS)
    return text
  }

  /** Remember what is on its way to a host. */
  leave(settled) {
    const done = () => this.leaving.delete(settled)
    this.leaving.add(settled)
    settled.then(done, done)
  }

  send(args, trip, isWaiting, show) {
    const words = ["send", "--session", trip.conversation.id, "--mode", args.mode ?? "one-way", "--json"]
    if (args.directory) words.push("--directory", args.directory)
    if (args.mode === "round-trip" && !isWaiting) words.push("--detach")
    words.push("--", args.host, ...(args.task ? ["-"] : []))
    let status = {}
    return this.command.run(words, {
      input: args.task,
      onLine: (line) => {
        if (line.dispatch && line.dispatch !== trip.name) this.note(Object.assign(trip, { name: line.dispatch }))
        status = statusAfter(line, status)
        show(statusLine(status))
      },
    })
  }

  /** Return the text for the model. After an abort nobody hears it: then the user is shown what there is to know. */
  async settle(args, trip, { ok, data, error }, close) {
    if (this.isDisposed) return ""
    if (!trip.isAborted) await close()
    if (ok && isOut(data)) {
      this.watch(trip)
      return leftAndComesBack(data)
    }
    this.forget(trip)
    if (!data || (error && data.collected === "none")) {
      const text = `${trip.name ? `The hand-over to ${args.host} did not succeed` : "Nothing was handed over"}: ${errorText(error)}.`
      if (trip.isAborted) await trip.conversation.show(text).catch(() => {})
      return `${text} Tell the user what to do about it; do not try again by yourself.`
    }
    if (data.collected === "none") return leftOneWay(data)
    await this.home(trip, data, error, "add").catch(() => {})
    return data.state === "done"
      ? `${data.host} has finished \`${data.name}\`; what was done there follows.`
      : `${data.host} did not finish \`${data.name}\`; what is known of it follows.`
  }

  /** Tell the conversation: `how` is `wake` for a new turn, `add` in a turn under way. */
  async home(trip, data, error, how) {
    const { conversation, known, isAborted } = trip
    const shown = await conversation.announce(known).catch(() => 0)
    const text = account(data, error, shown > 0 && !data.copy_session_id)
    if (isAborted) await conversation.show(text)
    else await conversation[how](text, briefing(data))
  }

  /** Wait in the background, then tell the conversation. Never rejects. */
  async watch(trip) {
    try {
      const { data, error } = await this.untilAnswered(trip.name)
      if (this.isDisposed) return
      this.forget(trip)
      const one = data?.dispatches?.[0]
      if (!one || isOut(one)) await trip.conversation.show(notHome(trip.name, error ?? NO_ANSWER.error))
      else if (one.mode === "one-way" && !isEnd(one)) await trip.conversation.show(leftOneWay(one))
      else await this.home(trip, one, error, "wake")
    } catch (error) {
      this.toast(`${trip.name} is home, but the conversation could not be told: ${error.message}`)
    }
  }

  /** A host that does not answer will: a laptop moves, a host restarts. */
  async untilAnswered(name) {
    for (let pause = FIRST_RETRY_MS; ; pause = Math.min(pause * 2, LONGEST_RETRY_MS)) {
      const envelope = await this.command.run(["resume", name, "--json"])
      if (this.isDisposed || ![5, 6].includes(envelope.error?.exit_code)) return envelope
      if (pause === FIRST_RETRY_MS) this.toast(`${name}: ${envelope.error.message}; trying again`)
      await delay(pause)
      if (this.isDisposed) return envelope
    }
  }

  /** Go on with one dispatch, unless somebody brought it home since. */
  async goOn({ name, session, isAborted }) {
    const { data, error } = await this.command.run(["show", name, "--json"])
    if (this.isDisposed) return
    const trip = { conversation: new Conversation(this.input, session), name, isAborted }
    if (error?.exit_code === 10 || (data && data.collected !== "none")) return this.forget(trip)
    trip.known = await trip.conversation.ids()
    await this.watch(trip)
  }

  note({ name, conversation, isAborted }) {
    try {
      if (name) this.waiting.note({ name, session: conversation.id, isAborted })
    } catch {
      // Without the file only the next start does not know of it; `remote-dispatch resume` does.
    }
  }

  forget({ name }) {
    if (name) this.waiting.forget(name)
  }

  toast(message) {
    this.input.client.tui.showToast({ body: { message: oneLine(message, 200), variant: "warning" } }).catch(() => {})
  }

  /** A hand-over that is under way may end; waiting stops, and the next start goes on with it. */
  async dispose() {
    await Promise.race([Promise.allSettled(this.leaving), delay(DISPOSE_PATIENCE_MS)])
    this.isDisposed = true
    this.command.interrupt()
    this.waiting.release()
  }
}

/** OpenCode does not check what the model wrote. */
function problemWith(args) {
  if (typeof args.host !== "string" || !args.host) return "`host` is missing"
  if (!["one-way", "round-trip", undefined].includes(args.mode)) return "`mode` is `one-way` or `round-trip`"
  return ["task", "directory"].some((key) => args[key] !== undefined && typeof args[key] !== "string")
    ? "`task` and `directory` are texts"
    : null
}

async function server(input, options) {
  // An OpenCode that works for a dispatch hands nothing over.
  if (process.env.REMOTE_DISPATCH_DEPTH) return {}
  const plugin = new Plugin(input, options)
  plugin.start()
  return {
    config: async (config) => {
      config.command ??= {}
      config.command.dispatch ??= SLASH_COMMAND
      tendSeeds(config, input)
    },
    "tool.definition": async (asked, output) => {
      if (asked.toolID !== TOOL) return
      output.description = description(await plugin.names.current())
      output.jsonSchema = SCHEMA
    },
    tool: {
      [TOOL]: { description: description([]), args: PROPERTIES, execute: (args, ctx) => plugin.execute(args, ctx) },
    },
    dispose: () => plugin.dispose(),
  }
}

// --- seeds: no wait for a package registry

const LOCK = '{"name":"seeded-by-remote-dispatch","packages":{"":{"dependencies":{"@opencode-ai/plugin":"*"}}}}\n'
const NOTE = "seeded-by-remote-dispatch.txt"
const NOTE_TEXT =
  "Empty on purpose: with this directory and ../package-lock.json OpenCode awaits no package registry at its start.\n" +
  "`remote-dispatch plugin status` says more. Remove both when a plugin or tool of yours needs packages.\n"

/**
 * With any plugin OpenCode waits, at each start, until packages are installed in every directory of configuration. It does so
 * before this runs: a directory that is still without them had no network, and is seeded, so that the next start waits
 * for nothing. A seed goes as soon as another plugin or tool could need packages. Rule and bytes are those of seed.py.
 */
function tendSeeds(config, input) {
  const listed = config.plugin_origins ?? (config.plugin ?? []).map((spec) => ({ spec }))
  const others = listed.filter(({ spec }) => !String([spec].flat()[0]).endsWith("/remote-dispatch.js"))
  for (const { folder, scopes } of configurationFolders(input)) {
    const isNeeded = hasScripts(folder) || others.some(({ scope }) => !scope || scopes.includes(scope))
    // A directory that cannot be written is no reason to hold up OpenCode.
    try {
      if (isNeeded && isSeeded(folder)) unseed(folder)
      else if (!isNeeded && isBare(folder)) seed(folder)
    } catch {}
  }
}

/** Those that OpenCode 1.18 fills with packages, and whose plugins may need them. */
function configurationFolders({ directory, worktree }) {
  const base = process.env.XDG_CONFIG_HOME || path.join(os.homedir(), ".config")
  const own = process.env.OPENCODE_CONFIG_DIR
  const home = path.join(os.homedir(), ".opencode")
  const users = [path.join(base, "opencode"), ...(own ? [own] : [])].map((folder) => ({ folder, scopes: ["global"] }))
  const projects = process.env.OPENCODE_DISABLE_PROJECT_CONFIG ? [] : between(directory, worktree)
  return [
    ...users,
    { folder: home, scopes: ["global", "local"] },
    ...projects.filter((folder) => folder !== home).map((folder) => ({ folder, scopes: ["local"] })),
  ]
}

function between(directory, worktree) {
  const folders = []
  for (let place = directory; ; place = path.dirname(place)) {
    folders.push(path.join(place, ".opencode"))
    if (place === worktree || place === path.dirname(place)) return folders
  }
}

function isSeeded(folder) {
  try {
    return fs.readdirSync(path.join(folder, "node_modules")).every((name) => name === NOTE) && hasOurLock(folder)
  } catch {
    return false
  }
}

const exists = (folder, name) => fs.existsSync(path.join(folder, name))
const hasOurLock = (folder) => fs.readFileSync(path.join(folder, "package-lock.json"), "utf8") === LOCK
/** A seed that was interrupted has its lock file alone. */
const isBare = (folder) =>
  exists(folder, ".") &&
  !exists(folder, "node_modules") &&
  !exists(folder, "package.json") &&
  (!exists(folder, "package-lock.json") || hasOurLock(folder))

function hasScripts(folder) {
  return ["plugin", "plugins", "tool", "tools"].some((kind) => {
    const names = fs.existsSync(path.join(folder, kind)) ? fs.readdirSync(path.join(folder, kind)) : []
    return names.some((name) => /\.[jt]s$/.test(name) && name !== "remote-dispatch.js")
  })
}

/** `plugin uninstall` finds it by the note in our own directory, which is there before the seed is. */
function seed(folder) {
  const notes = path.join(stateFolder(), "seeds")
  fs.mkdirSync(notes, { recursive: true, mode: 0o700 })
  fs.writeFileSync(path.join(notes, createHash("sha256").update(folder).digest("hex").slice(0, 16)), folder, { mode: 0o600 })
  fs.writeFileSync(path.join(folder, "package-lock.json"), LOCK)
  fs.mkdirSync(path.join(folder, "node_modules"))
  fs.writeFileSync(path.join(folder, "node_modules", NOTE), NOTE_TEXT)
}

function unseed(folder) {
  fs.rmSync(path.join(folder, "package-lock.json"), { force: true })
  fs.rmSync(path.join(folder, "node_modules"), { recursive: true, force: true })
}

export default { id: "remote-dispatch", server }
