"""What each step of the way to a host means: facts in, findings out. Pure; no finding holds an address."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from remote_dispatch.doctor.finding import Check, Finding, Fix, Severity
from remote_dispatch.remote.trail import Hop, KeyStock, Problem
from remote_dispatch.text import clean

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from remote_dispatch.remote.observe import FirstWords, Observation
    from remote_dispatch.remote.ssh_config import Target

_NO_SHELLS = (  # said by nologin(8), by git-shell, and by sshd for `ForceCommand internal-sftp`
    ("This account is currently not available", "its login shell is `nologin`"),
    ("fatal: Interactive git shell is not enabled", "its login shell is `git-shell`, which runs git only"),
    ("This service allows sftp connections only", "it allows SFTP only"),
)
_QUIET = {
    "bash": "put `case $- in *i*) ;; *) return ;; esac` at the top of ~/.bashrc there",
    "zsh": "move what prints from ~/.zshenv to ~/.zshrc there",
    "fish": "put `status is-interactive; or exit` at the top of ~/.config/fish/config.fish there",
    "csh": "put `if (! $?prompt) exit` at the top of ~/.cshrc there",
    "tcsh": "put `if (! $?prompt) exit` at the top of ~/.tcshrc there",
}
_SUBSYSTEM = "add the line `Subsystem sftp internal-sftp` to sshd_config there"
_QUIET_ANYWHERE = "let the start-up files of the login shell there print in interactive shells only"


@dataclass(frozen=True, slots=True)
class Look:
    """What name and port say when they are asked by themselves. None: not asked."""

    resolves: bool | None = None
    answer: bytes | None = None
    """What came back when we introduced ourselves as an SSH client; empty when it hung up."""
    is_silent: bool = False


@dataclass(frozen=True, slots=True)
class View:
    """All that is known, for the judgements below."""

    name: str
    seen: Observation
    target: Target
    look: Look

    @property
    def hop(self) -> Hop:
        """Where it ended, or the host itself."""
        return self.seen.trail.hops[-1]

    @property
    def stop(self) -> Target:
        """The same, as an address."""
        return (*self.target.jumps, self.target)[len(self.seen.trail.hops) - 1]

    @property
    def who(self) -> str:
        """The same, in words."""
        return "the jump host" if self.hop.is_jump_host else "it"

    @property
    def whose(self) -> str:
        """The same, as an owner."""
        return "the jump host's" if self.hop.is_jump_host else "its"


def findings_until_an_error(view: View) -> Iterator[Finding]:
    """Yield what each step means, up to the first one that is not passed."""
    judges: tuple[Callable[[View], list[Finding]], ...]
    judges = (_entry, _name, _port, _host_key, _login, _noise, _shell, _sftp)
    for judge in judges:
        findings = judge(view)
        yield from findings
        if any(finding.severity is Severity.ERROR for finding in findings):
            return


def set_command(name: str, what: str) -> str:
    """Return the command that corrects a field of the entry."""
    return f"remote-dispatch hosts set {name} {what}"


def _entry(view: View) -> list[Finding]:
    if view.hop.problem is Problem.SETTINGS:
        return [
            Finding(
                Check.ENTRY,
                Severity.ERROR,
                f"{view.whose} connection settings or keys are not usable",
                cure="look at this host in ~/.ssh/config: `ssh` with its address says which line it refuses",
            )
        ]
    jumps = len(view.target.jumps)
    way = f"through {'a jump host' if jumps == 1 else f'{jumps} jump hosts'}" if jumps else "directly"
    if view.target.proxy_command:
        way = "through the `ProxyCommand` of ~/.ssh/config"
    return [Finding(Check.ENTRY, Severity.OK, f"reached {way}")]


def _name(view: View) -> list[Finding]:
    problem, hop = view.hop.problem, view.hop
    if problem is Problem.NO_SUCH_NAME:
        return [_no_such_name(view)]
    if problem is Problem.NO_NAME_SERVER or (problem is Problem.LATE and view.look.resolves is False):
        seen = f"no name server answered when {view.whose} address was looked up"
        return [Finding(Check.NAME, Severity.ERROR, seen, cure="is this machine online, and the VPN on?")]
    if view.target.proxy_command and not view.target.jumps:
        return [Finding(Check.NAME, Severity.OK, "looked up by its `ProxyCommand`")]
    if view.target.jumps and not hop.is_jump_host:
        return [Finding(Check.NAME, Severity.OK, "looked up by the jump host, whose own address resolves")]
    return [Finding(Check.NAME, Severity.OK, f"{view.whose} address resolves")]


def _no_such_name(view: View) -> Finding:
    seen = f"{view.whose} address does not resolve"
    if view.target.jumps and not view.hop.is_jump_host:
        seen = "the jump host cannot resolve its address"
    elif view.stop.alias == view.stop.host and "." not in view.stop.host:
        seen += ": it is neither an alias of ~/.ssh/config nor a name on this network"
    if view.hop.is_jump_host:
        return Finding(
            Check.NAME, Severity.ERROR, seen, cure="correct `ProxyJump` in ~/.ssh/config, or turn the VPN on"
        )
    cure = "turn the VPN on if it is only known there, or correct the address"
    return Finding(Check.NAME, Severity.ERROR, seen, cure=cure, command=set_command(view.name, "host ADDRESS"))


def _port(view: View) -> list[Finding]:
    hop = view.hop
    if hop.problem is None or hop.key_kind or hop.problem in _ABOUT_KEYS:
        if hop.hang_ups:
            return [_port_is_busy(view)]
        behind = ", behind a jump host" if view.target.jumps and not hop.is_jump_host else ""
        return [Finding(Check.PORT, Severity.OK, f"an SSH server answers{behind}")]
    seen, cure, command = _closed_port(view)
    return [Finding(Check.PORT, Severity.ERROR, seen, cure=cure, command=command)]


_ABOUT_KEYS = frozenset(
    {Problem.KEY_UNKNOWN, Problem.KEY_CHANGED, Problem.KEY_REVOKED, Problem.KEY_UNCERTIFIED, Problem.NOTHING_IN_COMMON}
)


def _port_is_busy(view: View) -> Finding:
    times = "once" if view.hop.hang_ups == 1 else f"{view.hop.hang_ups} times"
    return Finding(
        Check.PORT,
        Severity.WARNING,
        f"{view.who} hung up {times} before it let anybody in: too many logins at once, it seems",
        cure="raise `MaxStartups` in sshd_config there if that happens often",
    )


def _closed_port(view: View) -> tuple[str, str, str | None]:
    """Return what was seen, the cure and its command."""
    problem, hop = view.hop.problem, view.hop
    if problem is Problem.NOT_FORWARDED:
        return "the jump host forbids connections to what is behind it", _FORWARDING, None
    if view.stop.proxy_command and not hop.is_ssh:
        return f"the `ProxyCommand` for {_it(view.who)} brought no SSH server's answer", _PROXY, None
    if hop.is_ssh:
        return _broken_handshake(view)
    return _no_ssh_server(view) if hop.is_open else _unreached(view)


def _unreached(view: View) -> tuple[str, str, str | None]:
    is_behind = bool(view.target.jumps) and not view.hop.is_jump_host
    if view.hop.problem is Problem.REFUSED:
        seen = f"nothing listens on {view.whose} SSH port{', says the jump host' if is_behind else ''}"
        return seen, "start the SSH server there, or correct the port", _set_port(view)
    if is_behind:
        return "the jump host could not reach it", "is it switched on, and may the jump host connect to it?", None
    seen = f"{view.who} does not answer"
    return seen, f"is {view.who} switched on, the VPN on, and the port open in its firewall?", None


def _set_port(view: View) -> str | None:
    return None if view.hop.is_jump_host else set_command(view.name, "port PORT")


_FORWARDING = "ask its owner for `AllowTcpForwarding yes` (and `PermitOpen`, where it is set) in sshd_config there"
_PROXY = "run that command of ~/.ssh/config by hand: it has to connect its stdin and stdout to an SSH server"


def _it(who: str) -> str:
    return "this host" if who == "it" else who


def _broken_handshake(view: View) -> tuple[str, str, None]:
    if view.hop.problem is Problem.LATE:
        return (
            f"an SSH server introduces itself as {_it(view.who)} and then falls silent",
            "on a VPN that is often packets that are too large: try a smaller MTU here; or it is overloaded",
            None,
        )
    return _hangs_up(view)


def _no_ssh_server(view: View) -> tuple[str, str, str | None]:
    answer, set_port = view.look.answer, _set_port(view)
    cure = "correct the port, or start the SSH server there"
    if answer and answer.startswith(b"HTTP/"):
        return f"a web server answers on {view.whose} port, no SSH server", cure, set_port
    if answer and not answer.startswith(b"SSH-2"):
        return f"something else than an SSH server answers on {view.whose} port", cure, set_port
    if view.look.is_silent or (answer is None and view.hop.problem is Problem.LATE):
        return f"{view.whose} port is open, and nothing speaks there", cure, set_port
    return _hangs_up(view)


def _hangs_up(view: View) -> tuple[str, str, None]:
    cure = (
        "wait a minute: there may be too many logins at once; or it bars this machine (fail2ban, hosts.deny), or no "
        "SSH server listens on that port"
    )
    return f"{view.who} hangs up before the login", cure, None


def _host_key(view: View) -> list[Finding]:
    problem, hop = view.hop.problem, view.hop
    if problem not in _ABOUT_KEYS:
        how = "vouched for by an authority that you trust" if hop.is_key_certified else "known"
        too = ", and so are those of the jump hosts" if view.target.jumps and not hop.is_jump_host else ""
        return [Finding(Check.HOST_KEY, Severity.OK, f"{view.whose} host key is {how}{too}", detail=_kind(hop))]
    seen, cure, command = _bad_key(view)
    fix = Fix.ACCEPT_HOST_KEY if problem is Problem.KEY_UNKNOWN else None
    return [Finding(Check.HOST_KEY, Severity.ERROR, seen, cure=cure, command=command, fix=fix)]


def _kind(hop: Hop) -> dict[str, str]:
    return {"kind": hop.key_kind} if hop.key_kind else {}


def _bad_key(view: View) -> tuple[str, str, str | None]:
    whose = view.whose
    if view.hop.problem is Problem.KEY_UNKNOWN:
        cure = "compare the fingerprint with the one that its owner names, and accept the key"
        return f"{whose} host key is unknown", cure, f"remote-dispatch doctor {view.name} --fix"
    if view.hop.problem is Problem.KEY_CHANGED:
        cure = (
            "stop: somebody may be between you and it; ask its owner whether the key changed and for the new "
            "fingerprint, and only then remove the old key with `ssh-keygen -R` and its address"
        )
        return (
            f"{whose} host key is not the one that is known",
            cure,
            f"remote-dispatch hosts show {view.name} --reveal",
        )
    if view.hop.problem is Problem.KEY_REVOKED:
        return f"{whose} host key is revoked", "stop: ask its owner for the new key", None
    if view.hop.problem is Problem.KEY_UNCERTIFIED:
        seen = f"the authority that you trust for {whose} host key does not vouch for it"
        return seen, "stop: ask its owner to renew its host certificate, which may have expired", None
    seen = f"no key exchange, cipher or host key type in common with {_it(view.who)}"
    return seen, "bring the SSH server there up to date", None


def _login(view: View) -> list[Finding]:
    hop, stock = view.hop, view.hop.stock or KeyStock()
    if hop.is_in:
        return [_logged_in(hop), *_exposed(stock)]
    if hop.problem is Problem.TOO_MANY_KEYS:
        return [
            Finding(
                Check.LOGIN,
                Severity.ERROR,
                f"{view.who} hung up after {_count(hop.offered, 'key')}: too many that it does not know",
                cure="name the right key in ~/.ssh/config: `IdentityFile` and `IdentitiesOnly yes` for this host",
            )
        ]
    if hop.problem is not Problem.NOT_ACCEPTED:
        seen = f"{view.who} knew its name and then did not let anybody in in time"
        return [
            Finding(
                Check.LOGIN, Severity.ERROR, seen, cure="touch your hardware key if it is one, or try again in a minute"
            )
        ]
    seen, cure, command = _no_key_accepted(view, stock)
    return [Finding(Check.LOGIN, Severity.ERROR, seen, cure=cure, command=command)]


def _logged_in(hop: Hop) -> Finding:
    if hop.used is None:
        return Finding(Check.LOGIN, Severity.WARNING, "it lets anybody in, without any key")
    origin = "agent" if hop.used.is_from_agent else "key-file"
    what = "a certificate" if hop.used.is_certificate else "a key"
    where = "of the agent" if hop.used.is_from_agent else "from a file"
    detail = {"method": origin, "kind": hop.used.kind, "certificate": "yes" if hop.used.is_certificate else "no"}
    return Finding(Check.LOGIN, Severity.OK, f"logged in with {what} {where} ({hop.used.kind})", detail=detail)


def _exposed(stock: KeyStock) -> list[Finding]:
    if not stock.exposed:
        return []
    return [
        Finding(
            Check.LOGIN,
            Severity.WARNING,
            "others on this machine may read a key file of yours; it works here, and `ssh` itself refuses such a key",
            cure="take it from everybody but you",
            command="chmod -R go-rwx ~/.ssh",
        )
    ]


def _no_key_accepted(view: View, stock: KeyStock) -> tuple[str, str, str | None]:
    """Return what was seen, the cure and its command."""
    if view.hop.stock is None:
        seen = f"{view.who} takes no keys: only a password, or another way that asks somebody"
        return seen, "set `PubkeyAuthentication yes` in sshd_config there; nothing here ever types a password", None
    if not view.hop.is_stock_spent:
        seen = f"a key was accepted, and then {view.who} wanted something more, a password or a code"
        return seen, "ask its owner for a login by key alone (`AuthenticationMethods publickey`)", None
    if stock.locked:
        seen = f"no key was accepted; {_count(stock.locked, 'key file')} could not be used: a passphrase, and no agent"
        if stock.agent == "answers":
            seen = f"no key was accepted; {_count(stock.locked, 'key file')} with a passphrase and not in the agent"
            return seen, "put the key into the agent", "ssh-add"
        return seen, "start an agent, and put the key into it", 'eval "$(ssh-agent -s)" && ssh-add'
    if not stock.offerable:
        seen = f"there was no key to offer: {_no_files(stock)}, and {_AGENTS[stock.agent]}"
        cure = "make a key, and have its public half added to ~/.ssh/authorized_keys there"
        return seen, cure, "ssh-keygen -t ed25519"
    return _none_known(view, stock)


_AGENTS = {
    "none": "there is no agent",
    "silent": "the agent does not answer: SSH_AUTH_SOCK points nowhere",
    "answers": "the agent has none for it",
}


def _no_files(stock: KeyStock) -> str:
    return f"{_count(stock.damaged, 'key file')} could not be read" if stock.damaged else "no key file"


def _none_known(view: View, stock: KeyStock) -> tuple[str, str, str | None]:
    files, offered = min(stock.files, view.hop.offered), view.hop.offered
    sources = [_count(files, "file")] * (files > 0) + [f"{offered - files} of the agent"] * (offered > files)
    seen = f"{view.who} accepted none of {_count(offered, 'key')} ({', '.join(sources)})"
    left = stock.offerable - offered
    if left > 0:
        cure = "name the right key in ~/.ssh/config: `IdentityFile` and `IdentitiesOnly yes` for this host"
        return f"{seen}; {left} more were not offered, since hosts hang up on many", cure, None
    cure = (
        "is the user name right? If so, have your public key added to ~/.ssh/authorized_keys there, which nobody else "
        "may write to (`ssh-copy-id` does it where a password gets in)"
    )
    return seen, cure, None


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _noise(view: View) -> list[Finding]:
    words = view.seen.words
    if words is None or not words.has_started:
        return [Finding(Check.SHELL_NOISE, Severity.SKIPPED, "not looked at, because no command starts there")]
    if words.noise:
        return [
            Finding(
                Check.SHELL_NOISE,
                Severity.WARNING,
                f"start-up files print {_count(len(words.noise), 'byte')} before each command's output; they are "
                "dropped here, and break `scp` and `rsync`",
                cure=_QUIET.get(_shell_name(words), _QUIET_ANYWHERE),
                is_there=True,
            )
        ]
    if words.noise_on_stderr:
        seen = "start-up files print on stderr before each command; that is dropped here"
        return [Finding(Check.SHELL_NOISE, Severity.NOTE, seen)]
    return [Finding(Check.SHELL_NOISE, Severity.OK, "start-up files print nothing")]


def _shell_name(words: FirstWords) -> str:
    return clean(PurePosixPath(words.output[0]).name, 40) if words.output else ""


def _shell(view: View) -> list[Finding]:
    words = view.seen.words
    if words is not None and words.has_started:
        name = _shell_name(words)
        return [Finding(Check.SHELL, Severity.OK, f"`{name or 'sh'}` runs commands", detail={"shell": name})]
    assert words is not None
    known = next((text for start, text in _NO_SHELLS if start.encode() in words.noise + words.noise_on_stderr), None)
    cure = (
        "look for `exit`, `exec` or a question in the start-up files of the login shell there, and for a forced "
        "command (`command=` in authorized_keys, `ForceCommand` in sshd_config)"
    )
    if known:
        cure = "ask its owner for an account with an ordinary login shell"
    return [Finding(Check.SHELL, Severity.ERROR, known or _silence(words), cure=cure, is_there=True)]


def _silence(words: FirstWords) -> str:
    """Return why no command started, in the shell's own last words where it had any."""
    if words.ending == "late":
        return "its login shell starts no command: a start-up file waits for something"
    if words.ending == "too-loud":
        return "its login shell starts no command: a start-up file prints without end"
    if words.ending == "no-session":
        return "it allows a login, and then no command"
    said = f": {words.last_words}" if words.last_words else ", and says nothing"
    return f"its login shell starts no command{said}"


def _sftp(view: View) -> list[Finding]:
    words = view.seen.words
    if view.seen.has_sftp:
        return [Finding(Check.SFTP, Severity.OK, "SFTP works")]
    assert words is not None
    if missing := words.output[1:]:
        tools = ", ".join(f"`{clean(tool, 20)}`" for tool in missing[:7])
        seen = f"there is no SFTP, and files cannot pass through the shell either: {tools} missing there"
        return [Finding(Check.SFTP, Severity.ERROR, seen, cure=f"add them, or SFTP: {_SUBSYSTEM}")]
    if words.noise:
        seen = "what the start-up files print spoils SFTP; files pass through the shell, which is slower"
        cure = _QUIET.get(_shell_name(words), _QUIET_ANYWHERE)
        return [Finding(Check.SFTP, Severity.WARNING, seen, cure=cure, is_there=True)]
    seen = "there is no SFTP; files pass through the shell, which works and is slower"
    return [Finding(Check.SFTP, Severity.NOTE, seen, cure=f"to be quicker, {_SUBSYSTEM}")]
