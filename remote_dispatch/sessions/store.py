"""Where named sessions are recorded on this machine: a file for each name, 0600, written whole or not at all."""

from __future__ import annotations

from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from pydantic import ValidationError

from remote_dispatch.dispatch.files import alone_in, make_private, read_regular_file, write_whole
from remote_dispatch.dispatch.names import new_name
from remote_dispatch.errors import ConfigurationError, UnknownNameError, UsageError
from remote_dispatch.hosts.suggest import guess
from remote_dispatch.model import DISPATCH_NAME
from remote_dispatch.sessions.values import NamedSession
from remote_dispatch.text import clean

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from remote_dispatch.dispatch.store import Store
    from remote_dispatch.opencode.served import Served

_SUFFIX = ".json"
_DIRECTORY = "sessions"
_MOST_NAMES = 10
_LONGEST_TITLE = 200


class SessionStore:
    """All named sessions of this user. With `dispatches`, a name is either a session's or a dispatch's."""

    def __init__(self, root: Path, dispatches: Store | None = None) -> None:
        self.root = root
        self._dispatches = dispatches

    def all(self) -> list[NamedSession]:
        """Read every record that can be read, oldest first."""
        records = [record for name in self.names() if (record := self._try(name)) is not None]
        return sorted(records, key=lambda record: (record.created, record.name))

    def unreadable(self) -> list[str]:
        """Return the names whose records cannot be read: broken, or of a newer remote-dispatch."""
        return sorted(name for name in self.names() if self._path(name).exists() and self._try(name) is None)

    def names(self) -> set[str]:
        """Return every name that is given, those of unreadable records too."""
        return _names_in(self.root)

    def load(self, name: str) -> NamedSession:
        """Read one. Raises UnknownNameError with what may have been meant, ConfigurationError when it is unreadable."""
        if DISPATCH_NAME.fullmatch(name) is None or not self._path(name).exists():
            raise self._unknown(name)
        return self._read(name)

    def several(self, names: Sequence[str]) -> list[NamedSession]:
        """Read these, in their order and once each; without names all that can be read. Raises as `load` does."""
        return [self.load(name) for name in dict.fromkeys(names)] if names else self.all()

    def find(self, host: str, session_id: str) -> NamedSession | None:
        """Return the record that stands for a session of a host, or None."""
        return next((one for one in self.all() if (one.host, one.session_id) == (host, session_id)), None)

    def check_name(self, asked: str | None, *, dispatch: str | None = None) -> None:
        """Raise UsageError when no session can be called so. None is fine: a name is made up then.

        `dispatch` is the id of the dispatch whose session it is: that one's own name is free.
        """
        if asked is not None and not DISPATCH_NAME.fullmatch(asked):
            raise UsageError(
                f"`{clean(asked, 60)}` is not a name: 2 to 31 of a-z, 0-9 and `-`, a letter first",
                hint="leave the name out, and one is made up",
            )
        self._free_name(asked, dispatch)

    def create(
        self, host: str, session: Served, *, name: str | None = None, works_on: str = "", dispatch: str | None = None
    ) -> NamedSession:
        """Record a session under the asked name, or a new one. Raises UsageError when it is taken or odd.

        It is taken, too, when another name stands for this session already.
        """
        self.check_name(name, dispatch=dispatch)
        with self._alone():
            if known := self.find(host, session.id):
                raise UsageError(
                    f"this session is called `{known.name}` already",
                    hint=f"see it with `remote-dispatch session show {known.name}`",
                )
            return self._write(
                NamedSession(
                    name=self._free_name(name, dispatch),
                    host=host,
                    session_id=session.id,
                    directory=session.directory,
                    title=clean(session.title, _LONGEST_TITLE),
                    works_on=works_on,
                    created=datetime.now(UTC),
                    dispatch=dispatch,
                )
            )

    def update(self, name: str, change: Callable[[NamedSession], NamedSession]) -> NamedSession:
        """Change the record as it is now, with no other process in between. Raises as `load` does.

        The name stays, whatever `change` returns.
        """
        with self._alone():
            return self._write(change(self.load(name)).but(name=name))

    def save(self, named: NamedSession) -> NamedSession:
        """Write a record over the one of its name. Raises UnknownNameError when it was forgotten meanwhile."""
        return self.update(named.name, lambda _: named)

    def rename(self, old: str, new: str) -> NamedSession:
        """Call a session by another name. Raises UnknownNameError, and UsageError when the new name is taken or odd."""
        record = self.load(old)
        self.check_name(new, dispatch=record.dispatch)
        with self._alone():
            renamed = self.load(old).but(name=self._free_name(new, record.dispatch))
            self._path(old).rename(self._path(new))
            return self._write(renamed)

    def move(self, old_host: str, new_host: str) -> list[str]:
        """Follow a host that is called otherwise now; return the names of its sessions."""
        with self._alone():
            moved = [self._write(one.but(host=new_host)) for one in self.all() if one.host == old_host]
        return [one.name for one in moved]

    def forget(self, name: str) -> None:
        """Remove the record, one that cannot be read too; the session stays. Raises UnknownNameError."""
        if name not in self.names():
            raise self._unknown(name)
        with self._alone():
            self._path(name).unlink(missing_ok=True)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep other writers out, those of dispatches too: they give names as well."""
        make_private(self.root)
        shared = self._dispatches.root if self._dispatches else self.root
        make_private(shared)
        with alone_in(shared):
            yield

    def _free_name(self, asked: str | None, dispatch: str | None) -> str:
        named, dispatched = self.names(), self._names_of_dispatches(dispatch)
        if asked in named:
            raise UsageError(f"the name `{asked}` is taken", hint=f"see it with `remote-dispatch session show {asked}`")
        if asked in dispatched:
            raise UsageError(f"a dispatch is called `{asked}`", hint=f"see it with `remote-dispatch show {asked}`")
        return asked or new_name(named | dispatched)

    def _names_of_dispatches(self, but: str | None) -> set[str]:
        if self._dispatches is None:
            return set()
        return {record.name for record in self._dispatches.all() if record.id != but}

    def _path(self, name: str) -> Path:
        return self.root / f"{name}{_SUFFIX}"

    def _write(self, named: NamedSession) -> NamedSession:
        write_whole(self._path(named.name), named.model_dump_json(indent=1).encode())
        return named

    def _read(self, name: str) -> NamedSession:
        try:
            record = NamedSession.model_validate_json(read_regular_file(self._path(name)))
        except (OSError, ValidationError) as error:
            raise ConfigurationError(
                f"the record of session `{name}` cannot be read",
                hint="was it written by a newer remote-dispatch? It was not changed; "
                f"`remote-dispatch session forget {name}` removes it, the session stays",
            ) from error
        # The name of the file counts: a crash in the middle of a change of names leaves the old one in it.
        return record if record.name == name else record.but(name=name)

    def _try(self, name: str) -> NamedSession | None:
        try:
            return self._read(name)
        except ConfigurationError:
            return None

    def _unknown(self, name: str) -> UnknownNameError:
        called = f"called `{name}`" if DISPATCH_NAME.fullmatch(name) else "called so"
        known = sorted(self.names())
        shown = ", ".join(f"`{one}`" for one in known[:_MOST_NAMES]) + (" ..." if len(known) > _MOST_NAMES else "")
        if self._dispatches is not None and name in self._dispatches.names():
            hint = f"it is a dispatch: see it with `remote-dispatch show {name}`"
        else:
            hint = guess(name, known) or "see all with `remote-dispatch session list`"
        return UnknownNameError(f"no session is {called}" + (f"; known: {shown}" if known else ""), hint=hint)


def default_session_store(dispatches: Store) -> SessionStore:
    """Return the named sessions of this user: beside the dispatches, in `sessions`."""
    return SessionStore(dispatches.root.parent / _DIRECTORY, dispatches)


def session_names(state: Path) -> set[str]:
    """Return the names of all named sessions whose records are below this state directory."""
    return _names_in(state / _DIRECTORY)


def _names_in(root: Path) -> set[str]:
    found = (path.name.removesuffix(_SUFFIX) for path in root.glob(f"[a-z]*{_SUFFIX}"))
    return {name for name in found if DISPATCH_NAME.fullmatch(name)}
