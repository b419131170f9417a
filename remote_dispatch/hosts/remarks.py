"""What is not wrong in the hosts files and may still surprise: entries that hide others, names that look alike."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from remote_dispatch.hosts.registry import Registry


def remarks_on(registry: Registry) -> tuple[str, ...]:
    """Return the remarks, a sentence each: the registry's notes first."""
    return (*registry.notes, *_hidden(registry), *_alike(registry))


def _hidden(registry: Registry) -> Iterator[str]:
    for name in registry.all_names:
        if name not in registry.overrides:
            for origin in registry.hidden(name):
                yield f"host `{name}` in {origin} is hidden by the later one in {registry.origin(name)}"


def _alike(registry: Registry) -> Iterator[str]:
    seen: dict[str, str] = {}
    for name in registry.all_names:
        twin = seen.setdefault(name.lower(), name)
        if twin != name:
            yield f"hosts `{twin}` and `{name}` differ only in case"
