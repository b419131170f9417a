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
STUB_GATE), export-gate (the same), export-cut, export-fails, export-hang, run-exit-1, db-fails, delete-fails; reader-refuses, reader-killed,
reader-elsewhere (it writes nothing that we could see), no-reader (what OpenCode's own runtime is asked for it answers by its own means, not by running the text that it is given, and refuses
where one of the faults above stands for a command that it replaces). STUB_MODELS: known models.
STUB_CLOCK_OFFSET_MS: added to every time it writes. STUB_LOG: a file to which each start adds a line, like `export`.
"""

import os
import stat
import sys
import time

from stub_base import (
    AGENTS,
    FAULTS,
    MODELS,
    VERSION,
    Failure,
    Later,
    data_directory,
    database,
    find_session,
    insert_message,
    insert_session,
    json,
    sqlite3,
)

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
    whole = {"info": session_info(row), "messages": messages_of(connection, identity)}
    text = json.dumps(whole, indent=2, ensure_ascii=False) + "\n"
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


# --- the others


def run(arguments):
    """In a module of its own: most calls need none of it."""
    return Later("stub_run").run(arguments)


def query_database(arguments):
    if arguments == ["path"]:
        print(os.path.join(data_directory(), "opencode.db"))
        return
    if "db-fails" in FAULTS:
        raise Failure("Unexpected error\n\ndatabase is locked")
    layout = "tsv"
    if arguments[0] == "--format":
        layout, arguments = arguments[1], arguments[2:]
    try:
        print_rows(database().execute(arguments[0]).fetchall(), layout)
    except sqlite3.Error as error:
        raise Failure(f"\x1b[91m\x1b[1mError: \x1b[0mUnexpected error\n\n{error}") from None


def print_rows(rows, layout):
    if layout == "json":
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


# --- the reader

GZIP = 31
"""What tells `zlib` to write gzip's form."""
UNREADABLE = {"reader-refuses", "db-fails", "export-gate", "export-cut", "export-fails", "export-hang"}


def read(word, *values):
    """Do what the text of reader.js would; the exit status says whether it was done."""
    if FAULTS & UNREADABLE or not os.path.exists(os.path.join(data_directory(), "opencode.db")):
        leave_cut(values if word == "export" else ())
        return 94
    if "reader-killed" in FAULTS:
        os.kill(os.getpid(), 9)
    connection = database()
    connection.execute("pragma query_only = on")
    connection.execute("begin")
    try:
        if word == "rows":
            print_rows(connection.execute(values[1]).fetchall(), values[0])
        is_export = word == "export" and "reader-elsewhere" not in FAULTS
        for at in range(0, len(values) if is_export else 0, 3):
            write_export(connection, *values[at : at + 3])
    except (sqlite3.Error, Failure):
        return 94
    return 93


def leave_cut(values):
    for path in (*values[1::3], *values[2::3]):
        if path:
            with open(path, "w", encoding="ascii") as file:
                file.write("{")


def write_export(connection, identity, file, packed):
    row = find_session(connection, identity)
    messages = (json.dumps(one, ensure_ascii=False) for one in messages_of(connection, identity))
    lines = ",".join(f"\n{one}" for one in messages)
    text = f'{{"info":{json.dumps(session_info(row), ensure_ascii=False)},"messages":[{lines}{lines and chr(10)}]}}\n'
    data = text.encode("utf-8", "surrogatepass")
    for path, content in ((file, lambda: data), (packed, lambda: Later("zlib").compress(data, 1, GZIP))):
        if path:
            with open(path, "wb") as target:
                target.write(content())


def note_start(words):
    if os.environ.get("STUB_LOG"):
        with open(os.environ["STUB_LOG"], "a", encoding="utf-8") as log:
            log.write(" ".join(words) + "\n")


def main():
    if os.environ.get("BUN_BE_BUN") == "1" and "no-reader" not in FAULTS:
        note_start(["reader", sys.argv[3]])
        return read(*sys.argv[3:])
    arguments = [word for word in sys.argv[1:] if word != "--pure"]
    note_start(arguments[:1])
    if arguments in (["--version"], ["-v"]):
        print(VERSION)
        return 0
    if arguments[:1] == ["-e"]:
        print("Commands: opencode [project]  start opencode tui", end="")
        return 1
    try:
        return COMMANDS[arguments[0]](arguments[1:]) or 0
    except Failure as failure:
        print(failure, file=sys.stderr)
        return 1
