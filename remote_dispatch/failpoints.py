"""Named places at which a test can stop or end the process: `REMOTE_DISPATCH_FAILPOINTS` names a directory.

A file there that is called like the point says what happens when the point is reached, once: the file is removed.
`kill` ends the process as SIGKILL does; `pause` writes `POINT.reached` and goes on when `POINT.go` exists. The runner
knows the same (runner.sh). Without the variable nothing happens.
"""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

VARIABLE = "REMOTE_DISPATCH_FAILPOINTS"
_POLL_S = 0.02


async def reach(point: str) -> None:
    """Reach a point, for example `stage.before`."""
    directory = os.environ.get(VARIABLE)
    order = _taken(Path(directory) / point) if directory else None
    if order == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    while order == "pause" and not _may_go(Path(directory or "") / point):  # noqa: ASYNC110 - another process sets no event
        await asyncio.sleep(_POLL_S)


def _taken(order: Path) -> str | None:
    """Read an order and remove it."""
    try:
        action = order.read_text().strip()
        order.unlink()
    except FileNotFoundError:
        return None
    order.with_name(f"{order.name}.reached").touch()
    return action


def _may_go(order: Path) -> bool:
    return order.with_name(f"{order.name}.go").exists()
