"""What the runner says of itself at the end: facts, no verdict."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class Outcome(BaseModel):
    """`outcome.json` as the runner wrote it: facts, no verdict. Times in seconds since 1970, on the host's clock."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    schema_version: int = Field(default=1, alias="schema")
    dispatch: str
    session: str
    problem: str | None = None
    """None, or what stopped the runner: opencode-missing, directory, import-refused, import-unproved, run-failed,
    export-failed, terminated, no-space (or nothing can be written), lost (it was killed; a recovery wrote this)."""
    is_started: bool = Field(default=False, alias="started")
    import_status: int | None = None
    run_status: int | None = None
    export_status: int | None = None
    signal: str | None = None
    began_s: int | None = Field(default=None, alias="began")
    run_began_s: int | None = Field(default=None, alias="run_began")
    run_ended_s: int | None = Field(default=None, alias="run_ended")
    ended_s: int | None = Field(default=None, alias="ended")
    back_sha256: str | None = None
    back_bytes: int | None = None
    code: str | None = None
    """None, packed, failed (the tree stays on the host) or refused (nothing ran)."""
    code_problem: str | None = None
    """Why it failed or was refused, one word: see docs/code.md."""
    left_processes: int | None = Field(default=None, alias="left")
    """How many processes that the model started still ran at the end; None where that cannot be seen (macOS)."""
