"""What `run` and a worker that a launch command starts say to each other, as text; nothing is sent or read here.

Between the two may be ssh, a container or a scheduler: shells that read the command line again, another environment,
no open files but the three standard ones, no signals. So

- the arguments of the worker are written with the characters that a shell gives no meaning, the others as ``%XX``;
- what a child on this machine has by its environment comes in the first line of standard input, as JSON;
- what a child on this machine tells on a pipe of its own is told on standard error, each word in a line that begins
  with a control character that text does not have.
"""

from __future__ import annotations

import json
import os
import re
import string
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import field
from types import MappingProxyType

from zmqpipeline.protocol.dataclass import dataclass

LAUNCHED_FLAG = "--lifeline"
"""The first argument of a worker that a launch command starts: standard input is its lifeline, and begins with a
greeting; the other arguments are written as `plain` does."""

MARK = b"\x1ezmqpipeline "
"""What a line on standard error begins with that is for `run`. It may follow the part of another line."""

HERE = "here"
"""The first word of such a worker: ``here 4711 HOST``, its process id and its machine."""

MAX_GREETING = 60_000
"""The most bytes of a greeting: what an empty pipe takes at once."""

_PLAIN = frozenset(string.ascii_letters + string.digits + "@+=:,./_-")
_EMPTY = "%"


def plain(arguments: Sequence[str]) -> list[str]:
    """The arguments as words that no shell changes, however many read them."""
    return [_plain(word) or _EMPTY for word in arguments]


def _plain(word: str) -> str:
    # a shell may see more than a word in "=command" at its beginning, and in "~" anywhere
    letters = [chr(one) if chr(one) in _PLAIN else f"%{one:02X}" for one in os.fsencode(word)]
    return "".join(["%3D", *letters[1:]] if letters[:1] == ["="] else letters)


def unplain(words: Sequence[str]) -> list[str]:
    """The arguments that were written so."""
    return ["" if word == _EMPTY else _unplain(word) for word in words]


def _unplain(word: str) -> str:
    code = rb"%([0-9A-Fa-f]{2})"
    return os.fsdecode(re.sub(code, lambda found: bytes([int(found[1], 16)]), os.fsencode(word)))


NO_KEYS: Mapping[str, str] = MappingProxyType({})
"""What a worker of a run without keys is handed."""


@dataclass(frozen=True)
class Greeting:
    """The first line down the lifeline."""

    host: str
    """The machine of `run`."""
    pid: int
    """The process id of `run` on it."""
    imports: Sequence[str] = ()
    """The modules that are imported after the app's own."""
    environ: Mapping[str, str] = field(default_factory=dict)
    """Variables that are settings. Those that the worker's own environment has are left as they are."""
    keys: Mapping[str, str] = field(default_factory=dict, repr=False)
    """The keys that it connects with, if the run has keys: see `runtime.security.issued`."""

    def line(self) -> bytes:
        """As it is sent."""
        return json.dumps({**vars(self), "keys": dict(self.keys)}).encode() + b"\n"

    @classmethod
    def read(cls, line: bytes) -> Greeting | None:
        """What such a line says; None if it is another one."""
        try:
            said = json.loads(line)
            keys = {str(name): str(key) for name, key in said["keys"].items()}
            return cls(str(said["host"]), int(said["pid"]), tuple(said["imports"]), dict(said["environ"]), keys)
        except (ValueError, TypeError, KeyError, AttributeError):
            return None


class Words:
    """Takes what a worker told out of its standard error, whose bytes come in any parts."""

    def __init__(self) -> None:
        self.told = b""
        """The words, a line each."""
        self._rest = b""

    def take(self, data: bytes) -> bytes:
        """The next bytes; what of them, and of those before, is not for `run`, and can be passed on."""
        self._rest += data
        return b"".join(self._sorted())

    def _sorted(self) -> Iterator[bytes]:
        while self._rest:
            text, mark, after = self._rest.partition(MARK[:1])
            yield text
            self._rest = mark + after
            if not mark or MARK.startswith(self._rest):
                return  # nothing, or what may become the mark
            if not self._rest.startswith(MARK):
                yield mark
                self._rest = after
                continue
            word, end, after = self._rest.removeprefix(MARK).partition(b"\n")
            if not end and len(word) < MAX_GREETING:
                return
            if len(self.told) < MAX_GREETING:  # a worker tells a few; user code must not fill our memory with them
                self.told += word + b"\n"
            self._rest = after

    def last(self) -> bytes:
        """There is nothing more: what was kept back since it might have been for `run`."""
        rest, self._rest = self._rest, b""
        return rest
