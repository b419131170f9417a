"""`opencode run` of the stand-in: one turn, as the lines of its prompt say."""

import os
import sys
import time

from stub_base import (
    AGENTS,
    FAULTS,
    MODELS,
    VERSION,
    Failure,
    data_directory,
    database,
    insert_session,
    json,
    new_id,
    now_ms,
    pack,
    subprocess,
    write,
)


class Turn:
    """One prompt and its answer, written to the database and told as events."""

    def __init__(self, connection, session_id, model, agent, variant):
        self.connection, self.session_id, self.agent = connection, session_id, agent
        self.provider, _, self.model = model.partition("/")
        self.variant = variant
        self.status, self.finish, self.error = 0, "stop", None
        self.started = max(now_ms(), self.newest() + 1)

    def newest(self):
        row = self.connection.execute(
            "select max(time_created) from message where session_id = ?", (self.session_id,)
        ).fetchone()
        return row[0] or 0

    def ask(self, text):
        self.user = new_id("msg")
        info = {"role": "user", "time": {"created": self.started}, "summary": {"diffs": []}, "agent": self.agent,
                "model": {"providerID": self.provider, "modelID": self.model}}  # fmt: skip
        self.insert(self.user, info)
        self.part(self.user, {"type": "text", "text": text})

    def answer(self, text):
        self.assistant = new_id("msg")
        self.info = {
            "parentID": self.user, "role": "assistant", "mode": self.agent, "agent": self.agent,
            "path": {"cwd": os.getcwd(), "root": "/"}, "cost": 0,
            "tokens": {"input": 10, "output": 5, "reasoning": 0, "cache": {"read": 0, "write": 0}},
            "modelID": self.model, "providerID": self.provider, "time": {"created": self.started + 1},
        }  # fmt: skip
        self.insert(self.assistant, self.info)
        self.step("step_start", {"type": "step-start"})
        commands = [line[1:].partition(" ")[::2] for line in text.split("\n") if line.startswith("!")]
        for word, rest in commands or [("say", "done")]:
            getattr(self, f"do_{word}")(rest)
        self.conclude()

    def conclude(self):
        tokens = {"total": 15, "input": 10, "output": 5, "reasoning": 0, "cache": {"write": 0, "read": 0}}
        if self.error is None:
            self.step("step_finish", {"type": "step-finish", "reason": self.finish, "tokens": tokens, "cost": 0})
        self.info["time"]["completed"] = max(now_ms(), self.started + 2)
        self.info |= {"finish": self.finish} if self.error is None else {"error": self.error}
        self.connection.execute("update message set data = ? where id = ?", (pack(self.info), self.assistant))
        self.connection.execute("update session set time_updated = ?, agent = ?, model = ? where id = ?",
                                (now_ms(), self.agent, pack({"id": self.model, "providerID": self.provider}), self.session_id))  # fmt: skip

    def insert(self, identity, info, session_id=None):
        self.connection.execute("insert into message values (?, ?, ?, ?, ?)",
                                (identity, session_id or self.session_id, info["time"]["created"], now_ms(), pack(info)))  # fmt: skip

    def part(self, message, data, session_id=None):
        identity, session_id = new_id("prt"), session_id or self.session_id
        self.connection.execute(
            "insert into part values (?, ?, ?, ?, ?, ?)",
            (identity, message, session_id, now_ms(), now_ms(), pack(data)),
        )
        return data | {"id": identity, "sessionID": session_id, "messageID": message}

    def emit(self, kind, payload):
        event = {"type": kind, "timestamp": now_ms(), "sessionID": self.session_id} | payload
        print(json.dumps(event, separators=(",", ":")), flush=True)

    def step(self, kind, data):
        self.emit(kind, {"part": self.part(self.assistant, data)})

    def tool(self, name, tool_input, output, *, title="", metadata=None, error=None):
        times = {"start": now_ms(), "end": now_ms()}
        state = {
            "status": "completed",
            "input": tool_input,
            "output": output,
            "title": title,
            "metadata": metadata or {},
            "time": times,
        }
        if error is not None:
            state = {"status": "error", "input": tool_input, "error": error, "time": times}
        self.step("tool_use", {"type": "tool", "tool": name, "callID": new_id("call"), "state": state})

    def do_say(self, rest):
        self.step("text", {"type": "text", "text": rest, "time": {"start": now_ms(), "end": now_ms()}})

    def do_write(self, rest):
        name, _, text = rest.partition(" ")
        write(name, f"{text}\n")
        self.tool("write", {"filePath": name, "content": text}, "Wrote file successfully.", title=name)

    def do_bash(self, rest):
        done = subprocess.run(
            ["sh", "-c", rest],
            start_new_session=True,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        self.tool("bash", {"command": rest}, done.stdout, title=rest, metadata={"exit": done.returncode})

    def do_wait(self, rest):
        while not os.path.exists(rest):
            time.sleep(0.02)

    def do_hang(self, rest):
        while True:
            time.sleep(3600)

    def do_fail(self, rest):
        data = {"message": "refused by the provider", "statusCode": int(rest or 500), "isRetryable": False}
        self.error, self.status = {"name": "APIError", "data": data}, 1
        self.emit("error", {"error": self.error})

    def do_reject(self, rest):
        print("! permission requested: external_directory (/etc/*); auto-rejecting", file=sys.stderr)
        self.tool(
            "read",
            {"filePath": "/etc/hostname"},
            "",
            error="The user rejected permission to use this specific tool call.",
        )
        self.finish = "tool-calls"

    def do_deny(self, rest):
        error = "The user has specified a rule which prevents you from using this specific tool call. Here are some of the relevant rules []"
        self.tool("bash", {"command": rest}, "", error=error)

    def do_todo(self, rest):
        self.connection.execute("delete from todo where session_id = ?", (self.session_id,))
        todos = [
            {"content": content, "status": "pending" if position else "in_progress", "priority": "medium"}
            for position, content in enumerate(rest.split(";"))
        ]
        for position, todo in enumerate(todos):
            values = (self.session_id, *todo.values(), position, now_ms(), now_ms())
            self.connection.execute("insert into todo values (?, ?, ?, ?, ?, ?, ?)", values)
        self.tool(
            "todowrite", {"todos": todos}, json.dumps(todos), title=f"{len(todos)} todos", metadata={"todos": todos}
        )

    def do_task(self, rest):
        child, message = new_id("ses", is_descending=True), new_id("msg")
        insert_session(self.connection, {"id": child, "parentID": self.session_id, "slug": "child", "title": rest, "version": VERSION,
                                         "time": {"created": now_ms(), "updated": now_ms()}})  # fmt: skip
        self.insert(message, {"role": "user", "time": {"created": now_ms()}, "agent": "general",
                              "model": {"providerID": self.provider, "modelID": self.model}}, child)  # fmt: skip
        self.part(message, {"type": "text", "text": rest}, child)
        self.tool("task", {"description": rest, "prompt": rest, "subagent_type": "general"}, f'<task id="{child}">\ndone\n</task>',
                  title=rest, metadata={"parentSessionId": self.session_id, "sessionId": child})  # fmt: skip

    def do_output(self, rest):
        name, _, text = rest.partition(" ")
        path = os.path.join(data_directory(), "tool-output", name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        write(path, text)
        self.tool("bash", {"command": "long"}, f"...output truncated...\n\nFull output saved to: {path}", title="long")

    def do_record(self, rest):
        seen = {
            "environment": dict(os.environ),
            "arguments": sys.argv[1:],
            "stdin": self.prompt,
            "directory": os.getcwd(),
        }
        write(rest, json.dumps(seen))


def run(arguments):
    options = parse_options(
        arguments, ("--session", "--dir", "--model", "-m", "--agent", "--variant", "--format", "-s")
    )
    text = "" if sys.stdin.isatty() else sys.stdin.read()
    if not text.strip():
        raise Failure("\x1b[91m\x1b[1mError: \x1b[0mYou must provide a message or a command")
    connection = database()
    session_id = options.get("--session") or options.get("-s")
    row = connection.execute("select * from session where id = ?", (session_id,)).fetchone()
    if row is None:
        raise Failure("\x1b[91m\x1b[1mError: \x1b[0mSession not found")
    model = options.get("--model") or options.get("-m") or MODELS[0]
    agent = options.get("--agent", "build")
    if AGENTS.get(agent) != "primary":
        print(f'! agent "{agent}" not found. Falling back to default agent', file=sys.stderr)
        agent = "build"
    turn = Turn(connection, session_id, model, agent, options.get("--variant"))
    turn.prompt = text
    turn.ask(text)
    if model not in MODELS:
        error = {
            "name": "UnknownError",
            "data": {"message": "Unexpected server error. Check server logs for details.", "ref": "err_1"},
        }
        turn.emit("error", {"error": error})
        return 1
    turn.answer(text)
    directory = options.get("--dir") or os.environ.get("PWD") or os.getcwd()
    if os.path.realpath(directory) != row["directory"]:
        turn.do_hang("")
    return 1 if "run-exit-1" in FAULTS else turn.status


def parse_options(arguments, names):
    options, rest = {}, list(arguments)
    while rest:
        word = rest.pop(0)
        if word in names:
            options[word] = rest.pop(0)
        elif word not in ("--auto", "--thinking"):
            raise Failure(f"opencode run [message..]\n\nUnknown argument: {word}")
    return options
