// Asks the server on this machine. Values: health PORT · idle PORT SECONDS (when the server was started, since 1970) ·
// dispose PORT. Prints the version; or `busy`, or when a session was last changed, in seconds since 1970.
const [word, port, started] = process.argv.slice(2)
const login = "Basic " + btoa("opencode:" + process.env.OPENCODE_SERVER_PASSWORD)

async function ask(path, patience, { method = "GET", directory } = {}) {
  const headers = { authorization: login, connection: "close" }
  if (directory) headers["x-opencode-directory"] = encodeURIComponent(directory)
  const answer = await fetch(`http://127.0.0.1:${port}${path}`, { method, headers, signal: AbortSignal.timeout(patience) })
  if (!answer.ok) throw new Error(String(answer.status))
  return answer.json()
}

async function idle() {
  const sessions = await ask("/experimental/session?limit=100", 10000)
  // Only where something happened since the start can something be under way; to ask elsewhere would open projects.
  const recent = sessions.filter((one) => one.time.updated >= started * 1000)
  for (const directory of new Set(recent.map((one) => one.directory))) {
    if (Object.keys(await ask("/session/status", 10000, { directory })).length) return "busy"
  }
  return Math.floor(Math.max(started, ...recent.map((one) => one.time.updated / 1000)))
}

const commands = {
  health: async () => (await ask("/global/health", 1000)).version,
  idle,
  dispose: async () => String(await ask("/global/dispose", 10000, { method: "POST" })),
}
try {
  console.log(await commands[word]())
} catch {
  process.exit(1)
}
