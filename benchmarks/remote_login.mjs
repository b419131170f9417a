// Times the tool of the npm package `opencode-remote-login`: as a plugin of OpenCode in that plugin's place, or alone,
// run by OpenCode's own Bun as `remote_login.mjs SESSION HOST MODE`.
// PEER_MODULE is the package's module, PEER_OPTIONS its options as JSON, PEER_REPORT the file that gets the result.
import { writeFileSync } from "node:fs"

const { default: peer } = await import(process.env.PEER_MODULE)

async function timed(execute, args, context) {
  const began_s = Date.now() / 1000
  const began = performance.now()
  const result = await execute(args, context)
  const seconds = (performance.now() - began) / 1000
  writeFileSync(process.env.PEER_REPORT, JSON.stringify({ began_s, seconds, ...result }))
  return result
}

async function server(input) {
  const hooks = await peer.server(input, JSON.parse(process.env.PEER_OPTIONS))
  const tool = hooks.tool.remote_login
  const execute = tool.execute
  tool.execute = (args, context) => timed(execute, args, context)
  return hooks
}

export default { id: "opencode-remote-login", server }

if (import.meta.main) {
  const [session, host, mode] = process.argv.slice(2)
  const hooks = await server({ directory: process.cwd(), client: {} })
  await hooks.tool.remote_login.execute({ host, mode }, { sessionID: session })
}
