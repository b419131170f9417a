"""What all commands of the stand-in share: the database, ids, faults."""

import _functools
import os
import sys
import time


class Later:
    """A module that is imported when it is first used: tests start the stub thousands of times, often for one line."""

    def __init__(self, name):
        self.name = name

    def __getattr__(self, attribute):
        module = globals()[self.name] = self.load()
        return getattr(module, attribute)

    def load(self):
        return __import__(self.name)


class LaterSqlite(Later):
    """All that is needed of `sqlite3`, without the modules for dates, and without `functools`, which brings five more.

    SQLite's part in C asks `functools` for its cache of statements alone, which is C itself.
    """

    def load(self):
        class Functools:
            @staticmethod
            def lru_cache(size):
                return lambda call: _functools._lru_cache_wrapper(call, size, False, tuple)

        is_there = "functools" in sys.modules
        if not is_there:
            sys.modules["functools"] = Functools
        try:
            return __import__(self.name)
        finally:
            if not is_there:
                del sys.modules["functools"]


json, subprocess = Later("stub_json"), Later("subprocess")
sqlite3 = LaterSqlite("_sqlite3")

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
create index if not exists part_message_idx on part (message_id);
create table if not exists todo (session_id text not null references session(id) on delete cascade,
  content text not null, status text not null, priority text not null, position integer not null,
  time_created integer not null, time_updated integer not null, primary key (session_id, position));
"""
OPEN = []
"""Every connection with the database."""
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
    OPEN.append(connection)
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


def leave(status):
    """End at once with everything written: what Python does at its end takes a tenth of the time of a call."""
    for connection in OPEN:
        connection.close()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


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
