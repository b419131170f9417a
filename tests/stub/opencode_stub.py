"""A stand-in for OpenCode 1.18's command line, held to the real one by tests/runner/test_opencode_contract.py.

Sessions live in a SQLite database with the real tables and columns. `run` obeys lines of the prompt that start with `!`:

    !say TEXT            answer this            !write FILE TEXT     write a file
    !bash COMMAND        run it in a session of its own, as the bash tool does, and wait for it
    !wait FILE           go on when the file exists          !hang          never end
    !fail STATUS         provider error, exit 1              !reject        a refused permission, exit 0
    !deny COMMAND        a call that a rule forbids; the turn goes on
    !todo A;B;C          the todo list; A is in progress     !task TEXT      a sub-agent's session
    !output NAME TEXT    a tool output too long for the conversation
    !record FILE         write environment, arguments and stdin as JSON

STUB_FAULT (comma separated): import-refused, import-partial, import-elsewhere, import-gate (waits for the file
STUB_GATE), export-gate (the same), export-cut, export-fails, export-hang, run-exit-1, db-fails, delete-fails. STUB_MODELS: known models.
STUB_CLOCK_OFFSET_MS: added to every time it writes.
"""

import os
import stat
import sys
import time


class Later:
    """A module that is imported when it is first used: tests start the stub thousands of times, often for one line."""

    def __init__(self, name):
        self.name = name

    def __getattr__(self, attribute):
        module = globals()[self.name] = __import__(self.name)
        return getattr(module, attribute)


json, sqlite3, subprocess = Later("json"), Later("sqlite3"), Later("subprocess")

VERSION = "1.18.33"
SCHEMA = """
create table if not exists project (id text primary key, worktree text not null, vcs text, name text, icon_url text,
  icon_url_override text, icon_color text, time_created integer not null, time_updated integer not null,
  time_initialized integer, sandboxes text not null, commands text);
create table if not exists session (id text primary key, project_id text not null, workspace_id text, parent_id text,
  slug text not null, directory text not null, path text, title text not null, version text not null, share_url text,
  summary_additions integer, summary_deletions integer, summary_files integer, summary_diffs text, metadata text,
  cost real default 0 not null, tokens_input integer default 0 not null, tokens_output integer default 0 not null,
  tokens_reasoning integer default 0 not null, tokens_cache_read integer default 0 not null,
  tokens_cache_write integer default 0 not null, revert text, permission text, agent text, model text,
  time_created integer not null, time_updated integer not null, time_compacting integer, time_archived integer);
create table if not exists message (id text primary key,
  session_id text not null references session(id) on delete cascade,
  time_created integer not null, time_updated integer not null, data text not null);
create table if not exists part (id text primary key, message_id text not null references message(id) on delete cascade,
  session_id text not null, time_created integer not null, time_updated integer not null, data text not null);
create table if not exists todo (session_id text not null references session(id) on delete cascade,
  content text not null, status text not null, priority text not null, position integer not null,
  time_created integer not null, time_updated integer not null, primary key (session_id, position));
"""
FAULTS = set(os.environ.get("STUB_FAULT", "").split(","))
MODELS = os.environ.get("STUB_MODELS", "test/model test/other scripted/large scripted/small").split()
AGENTS = {"build": "primary", "plan": "primary", "general": "subagent"}


class Failure(Exception):
    """Ends the program with exit status 1 and this text on stderr."""


def data_directory():
    base = os.environ.get("XDG_DATA_HOME") or os.path.join(os.environ["HOME"], ".local", "share")
    return os.path.join(base, "opencode")


def database():
    os.makedirs(data_directory(), exist_ok=True)
    while True:
        try:
            return open_database()
        except sqlite3.OperationalError as error:
            # Of two that make the file at the same moment, SQLite turns one away without waiting.
            if "locked" not in str(error):
                raise
            time.sleep(0.02)


def open_database():
    connection = sqlite3.connect(os.path.join(data_directory(), "opencode.db"), timeout=10, isolation_level=None)
    connection.row_factory = sqlite3.Row
    connection.execute("pragma journal_mode = wal")
    connection.execute("pragma synchronous = normal")
    connection.execute("pragma foreign_keys = on")
    if connection.execute("select 1 from sqlite_master where name = 'todo'").fetchone():
        return connection
    connection.executescript(SCHEMA)
    now = now_ms()
    connection.execute(
        "insert or ignore into project values ('global', '/', null, null, null, null, null, ?, ?, null, '[]', null)",
        (now, now),
    )
    return connection


def now_ms():
    return int(time.time() * 1000) + int(os.environ.get("STUB_CLOCK_OFFSET_MS", "0"))


COUNTER = iter(range(1, 1 << 30))


def new_id(prefix, *, is_descending=False):
    number = (now_ms() * 4096 + next(COUNTER)) & 0xFFFFFFFFFFFF
    if is_descending:
        number ^= 0xFFFFFFFFFFFF
    return f"{prefix}_{number:012x}{os.urandom(7).hex()}"


def pack(value):
    return None if value is None else json.dumps(value, separators=(",", ":"))


def write(path, text):
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


def find_session(connection, identity):
    row = connection.execute("select * from session where id = ?", (identity,)).fetchone()
    if row is None:
        raise Failure(f"\x1b[91m\x1b[1mError: \x1b[0mSession not found: {identity}")
    return row


# --- import


def import_session(arguments):
    name = arguments[0]
    await_gate()
    try:
        with open(name, "rb") as file:
            transcript = json.loads(file.read())
    except FileNotFoundError:
        raise Failure(f"Error: File not found: {name}") from None
    except ValueError as error:
        raise Failure(f"Error: Invalid JSON in {name}: {error}") from None
    if transcript is None:
        print("Failed to read session data")
        return
    if "import-refused" in FAULTS or not isinstance(transcript, dict) or not isinstance(transcript.get("info"), dict):
        raise Failure("Unexpected error")
    connection = database()
    info = transcript["info"]
    insert_session(connection, info)
    if "messages" not in transcript:
        raise Failure("undefined is not an object (evaluating 'B.messages')")
    for message in transcript["messages"][: 1 if "import-partial" in FAULTS else None]:
        insert_message(connection, info["id"], message)
    print(f"Imported session: {info['id']}")


def await_gate(fault="import-gate"):
    while fault in FAULTS and not os.path.exists(os.environ["STUB_GATE"]):
        time.sleep(0.02)


def insert_session(connection, info):
    directory = "/elsewhere" if "import-elsewhere" in FAULTS else os.getcwd()
    model, tokens, summary = info.get("model"), info.get("tokens", {}), info.get("summary", {})
    connection.execute(
        "insert into session (id, project_id, parent_id, slug, directory, path, title, version, summary_additions, summary_deletions,"
        " summary_files, metadata, cost, tokens_input, tokens_output, permission, agent, model, revert, time_created, time_updated)"
        " values (?, 'global', ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
        " on conflict (id) do update set project_id = 'global', directory = excluded.directory, path = excluded.path,"
        " time_updated = excluded.time_updated",
        (
            info["id"], info.get("parentID"), info["slug"], directory, directory.lstrip("/"), info["title"], info["version"],
            summary.get("additions"), summary.get("deletions"), summary.get("files"), pack(info.get("metadata")),
            info.get("cost", 0), tokens.get("input", 0), tokens.get("output", 0), pack(info.get("permission")), info.get("agent"),
            pack(model), pack(info.get("revert")), info["time"]["created"], info["time"]["updated"],
        ),
    )  # fmt: skip


def insert_message(connection, session_id, message):
    info = {key: value for key, value in message["info"].items() if key not in ("id", "sessionID")}
    identity = message["info"]["id"]
    if not identity.startswith("msg"):
        raise Failure('Unexpected error\n\nExpected a string starting with "msg"')
    connection.execute("insert or ignore into message values (?, ?, ?, ?, ?)",
                       (identity, session_id, info["time"]["created"], now_ms(), pack(info)))  # fmt: skip
    for part in message["parts"]:
        data = {key: value for key, value in part.items() if key not in ("id", "sessionID", "messageID")}
        if not part["id"].startswith("prt"):
            raise Failure('Unexpected error\n\nExpected a string starting with "prt"')
        try:
            connection.execute("insert or ignore into part values (?, ?, ?, ?, ?, ?)",
                               (part["id"], part["messageID"], session_id, now_ms(), now_ms(), pack(data)))  # fmt: skip
        except sqlite3.IntegrityError:
            raise Failure(f'Failed query: insert into "part" {pack(data)}') from None


# --- export


def export_session(arguments):
    identity = arguments[0]
    print(f"Exporting session: {identity}", file=sys.stderr, flush=True)
    if not identity.startswith("ses"):
        raise Failure('Unexpected error\n\nExpected a string starting with "ses"')
    if "export-hang" in FAULTS:
        time.sleep(3600)
    await_gate("export-gate")
    connection = database()
    row = find_session(connection, identity)
    if "export-fails" in FAULTS:
        raise Failure(f"Error: Session not found: {identity}")
    text = (
        json.dumps(
            {"info": session_info(row), "messages": messages_of(connection, identity)}, indent=2, ensure_ascii=False
        )
        + "\n"
    )
    data = text.encode("utf-8", "surrogatepass")
    if "export-cut" in FAULTS:
        data = data[: len(data) // 2]
    if not stat.S_ISREG(os.fstat(1).st_mode) and not os.isatty(1):
        data = data[:65536]
    sys.stdout.buffer.write(data)


def session_info(row):
    info = {
        "id": row["id"],
        "slug": row["slug"],
        "projectID": row["project_id"],
        "directory": row["directory"],
        "path": row["path"],
    }
    info |= {"parentID": row["parent_id"]} if row["parent_id"] else {}
    if row["summary_files"] is not None:
        info["summary"] = {
            "additions": row["summary_additions"],
            "deletions": row["summary_deletions"],
            "files": row["summary_files"],
        }
    info |= {"title": row["title"]}
    info |= {"agent": row["agent"]} if row["agent"] else {}
    info |= {name: json.loads(row[name]) for name in ("model",) if row[name]}
    info |= {"version": row["version"], "cost": int(row["cost"]) if row["cost"] == int(row["cost"]) else row["cost"]}
    info["tokens"] = {
        "input": row["tokens_input"], "output": row["tokens_output"], "reasoning": row["tokens_reasoning"],
        "cache": {"read": row["tokens_cache_read"], "write": row["tokens_cache_write"]},
    }  # fmt: skip
    info |= {name: json.loads(row[name]) for name in ("metadata", "revert", "permission") if row[name]}
    return info | {"time": {"created": row["time_created"], "updated": row["time_updated"]}}


def messages_of(connection, session_id):
    rows = connection.execute(
        "select * from message where session_id = ? order by time_created, id", (session_id,)
    ).fetchall()
    return [
        {
            "info": json.loads(row["data"]) | {"id": row["id"], "sessionID": session_id},
            "parts": [
                json.loads(part["data"]) | {"id": part["id"], "sessionID": session_id, "messageID": row["id"]}
                for part in connection.execute("select * from part where message_id = ? order by id", (row["id"],))
            ],
        }
        for row in rows
    ]


# --- run


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


# --- the small ones


def query_database(arguments):
    if arguments == ["path"]:
        print(os.path.join(data_directory(), "opencode.db"))
        return
    if "db-fails" in FAULTS:
        raise Failure("Unexpected error\n\ndatabase is locked")
    options = {"--format": "tsv"}
    if arguments[0] == "--format":
        options["--format"], arguments = arguments[1], arguments[2:]
    try:
        rows = database().execute(arguments[0]).fetchall()
    except sqlite3.Error as error:
        raise Failure(f"\x1b[91m\x1b[1mError: \x1b[0mUnexpected error\n\n{error}") from None
    if options["--format"] == "json":
        print(json.dumps([dict(row) for row in rows], indent=2, ensure_ascii=False))
    elif rows:
        print(
            "\n".join(
                "\t".join("" if cell is None else str(cell) for cell in cells) for cells in [rows[0].keys(), *rows]
            )
        )


def session(arguments):
    if arguments[0] == "delete":
        connection = database()
        find_session(connection, arguments[1])
        if "delete-fails" in FAULTS:
            raise Failure("Unexpected error")
        connection.execute(
            "with recursive tree(id) as (values (?) union select s.id from session s join tree on s.parent_id = tree.id)"
            " delete from session where id in tree", (arguments[1],))  # fmt: skip
        print(f"\x1b[92m\x1b[1mSession {arguments[1]} deleted\x1b[0m", file=sys.stderr)
    elif arguments[0] == "list":
        rows = database().execute("select * from session where parent_id is null order by time_updated desc").fetchall()
        listed = [
            {"id": row["id"], "title": row["title"], "updated": row["time_updated"], "created": row["time_created"],
             "projectId": row["project_id"], "directory": row["directory"]} for row in rows]  # fmt: skip
        if listed:
            print(json.dumps(listed, indent=2))


def models(arguments):
    known = [model for model in MODELS if not arguments or model.startswith(f"{arguments[0]}/")]
    if not known:
        raise Failure(f"\x1b[91m\x1b[1mError: \x1b[0mProvider not found: {arguments[0]}")
    print("\n".join(known))


def rules():
    asked = {"permission": "external_directory", "pattern": "*", "action": "ask"}
    tool_output = {
        "permission": "external_directory",
        "pattern": f"{data_directory()}/tool-output/*",
        "action": "allow",
    }
    return [{"permission": "*", "action": "allow", "pattern": "*"}, asked, tool_output]


def agent(arguments):
    for name, mode in AGENTS.items():
        print(f"{name} ({mode})\n  {json.dumps(rules(), indent=2)}")


def debug(arguments):
    if arguments[0] == "agent":
        if arguments[1] not in AGENTS:
            raise Failure(f"Agent {arguments[1]} not found, run 'opencode agent list' to get an agent list")
        print(
            json.dumps(
                {"name": arguments[1], "mode": AGENTS[arguments[1]], "options": {}, "permission": rules()}, indent=2
            )
        )
    elif arguments[0] == "config":
        print(json.dumps({"agent": {}, "mode": {}, "plugin": [], "command": {}}, indent=2))
    elif arguments[0] == "paths":
        print(
            f"home       {os.environ['HOME']}\ndata       {data_directory()}\ntmp        {os.environ.get('TMPDIR', '/tmp')}/opencode"
        )


COMMANDS = {"import": import_session, "export": export_session, "run": run, "db": query_database, "session": session,
            "models": models, "agent": agent, "debug": debug}  # fmt: skip


def main():
    arguments = [word for word in sys.argv[1:] if word != "--pure"]
    if arguments in (["--version"], ["-v"]):
        print(VERSION)
        return 0
    try:
        return COMMANDS[arguments[0]](arguments[1:]) or 0
    except Failure as failure:
        print(failure, file=sys.stderr)
        return 1
