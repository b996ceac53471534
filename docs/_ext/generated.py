"""What pages take from the code: a comment ``<!-- generated: NAME -->`` is replaced by Markdown when they are built.

The generators need no Sphinx, so tests read them, too. A link to a file of the repository outside ``docs/`` becomes its
path: such files are not part of the built pages.
"""

from __future__ import annotations

import ast
import dataclasses
import importlib.util
import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click

from zmqpipeline import options
from zmqpipeline.app import Pipeline
from zmqpipeline.cli import main as cli
from zmqpipeline.protocol import codec, messages

MARK = re.compile(r"^<!-- generated: (\w+) -->$", re.MULTILINE)
"""Where something generated goes."""

LINK = re.compile(r"\[([^]]*)\]\((\.\./[^)\s]*)\)")
"""A link out of the folder of a page."""

HELP_WIDTH = 100
"""Columns of a help text."""


def field_docs(cls: type) -> dict[str, str]:
    """The string below each annotated field of a class, as one line."""
    (tree,) = ast.parse(inspect.getsource(cls)).body
    assert isinstance(tree, ast.ClassDef)
    found = {}
    for one, after in zip(tree.body, tree.body[1:], strict=False):
        if isinstance(one, ast.AnnAssign) and isinstance(one.target, ast.Name) and isinstance(after, ast.Expr):
            found[one.target.id] = _markdown(ast.literal_eval(after.value))
    return found


def _markdown(docstring: str) -> str:
    """One line of Markdown of a docstring's reStructuredText, as it is used here."""
    text = " ".join(docstring.split()).replace("``", "`")
    return text.replace("|", "\\|")


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def commands(group: click.Group | None = None, *before: str) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Each command of an app with its words: ``("dead", "list")``."""
    for name, command in sorted((group or _group()).commands.items()):
        if isinstance(command, click.Group):
            yield from commands(command, *before, name)
        else:
            yield (*before, name), command


def _group() -> click.Group:
    group = cli._commands(Pipeline("app"))
    # it imports a command when it is asked for
    group.list_commands(click.Context(group))
    return group


def flags_of(field: str) -> list[str]:
    """The flags that give an option, whichever commands have them."""
    found = {
        flag
        for _, command in commands()
        for parameter in command.params
        if parameter.name == field
        for flag in parameter.opts
        if flag.startswith("--")
    }
    return sorted(found)


def options_table() -> str:
    """Each field of `Options`: variable, flag, default, bounds, meaning."""
    said = field_docs(options.Options)
    lines = [_row("option", "variable", "flag", "default", "meaning"), _row(*["---"] * 5)]
    for one in dataclasses.fields(options.Options):
        flags = ", ".join(f"`{flag}`" for flag in flags_of(one.name))
        variable = "" if one.name in options.IN_PROGRAMS else f"`{options.variable(one.name)}`"
        lines.append(_row(f"`{one.name}`", variable, flags, f"`{one.default!r}`", said[one.name]))
    return "\n".join(lines)


def commands_pages() -> str:
    """Each command under a heading, with what its ``--help`` prints."""
    parts = []
    for words, command in commands():
        parents = click.Context(_group(), info_name="python -m app")
        for word in words[:-1]:
            parents = click.Context(click.Group(word), info_name=word, parent=parents)
        context = click.Context(
            command, info_name=words[-1], parent=parents, terminal_width=HELP_WIDTH, max_content_width=HELP_WIDTH
        )
        text = command.get_help(context)
        parts.append(f"## `{' '.join(words)}`\n\n```text\n{text}\n```")
    return "\n\n".join(parts)


def message_types() -> list[tuple[int, type]]:
    """Each message type of the wire with its code."""
    return list(enumerate(codec._CODES))


def messages_table() -> str:
    """Each message: its code, its fields after the five common ones, and its docstring's first sentence."""
    lines = [_row("code", "message", "fields", "meaning"), _row(*["---"] * 4)]
    for code, cls in message_types():
        lines.append(_row(str(code), f"`{cls.__name__}`", _fields(cls), _sentence(cls)))
    return "\n".join(lines)


def records_table() -> str:
    """Each record that travels inside a message, as the array of its fields."""
    lines = [_row("record", "fields", "meaning"), _row(*["---"] * 3)]
    for cls in record_types():
        lines.append(_row(f"`{cls.__name__}`", _fields(cls), _sentence(cls)))
    return "\n".join(lines)


def record_types() -> list[type]:
    """The dataclasses that are fields of messages, themselves or in a list."""
    spoken = {cls for _, cls in message_types()} | {messages.Envelope}
    return [
        value
        for value in vars(messages).values()
        if dataclasses.is_dataclass(value) and isinstance(value, type) and value not in spoken
    ]


def _fields(cls: Any) -> str:
    """Those in the header, in order; the payloads come last, whatever their place in the dataclass."""
    fields = dataclasses.fields(cls)
    ordered = [one for one in fields if one.type != "Blobs"] + [one for one in fields if one.type == "Blobs"]
    return ", ".join(f"`{one.name}: {one.type}`" for one in ordered).replace("|", "\\|") or "none"


def _sentence(cls: type) -> str:
    return _markdown(inspect.getdoc(cls) or "")


def plugin() -> str:
    """The fixtures of the pytest plugin."""
    if importlib.util.find_spec("zmqpipeline.pytest_plugin") is None:
        return "This version has none."
    return "```{eval-rst}\n.. automodule:: zmqpipeline.pytest_plugin\n   :members:\n```"


GENERATORS: dict[str, Callable[[], str]] = {
    "options": options_table,
    "commands": commands_pages,
    "messages": messages_table,
    "records": records_table,
    "plugin": plugin,
}


def fill(text: str) -> str:
    """A page with everything generated in its place. Raises KeyError for a mark that nothing is known for."""
    return MARK.sub(lambda found: GENERATORS[found[1]](), text)


def keep_inside(text: str, page: Path, docs: Path) -> str:
    """A page whose links to files outside `docs` are their paths instead."""

    def inside(found: re.Match[str]) -> str:
        target = (page.parent / found[2].partition("#")[0]).resolve()
        if target.is_relative_to(docs):
            return found[0]
        path = f"`{target.relative_to(docs.parent)}`"
        return path if found[1].strip("`") == path.strip("`") else f"{found[1]} ({path})"

    return LINK.sub(inside, text)


def _on_source_read(app: Any, docname: str, source: list[str]) -> None:
    docs = Path(app.srcdir)
    source[0] = keep_inside(fill(source[0]), Path(app.env.doc2path(docname)), docs)


_kept: dict[str, list[str]] = {}


def _keep_lines(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Before napoleon, which takes what stands before a colon in an attribute's docstring for its type."""
    if what in ("attribute", "data", "property"):
        _kept[name] = list(lines)


def _give_lines_back(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """After napoleon."""
    if name in _kept:
        lines[:] = _kept.pop(name)


def setup(app: Any) -> dict[str, Any]:
    """What Sphinx calls."""
    app.connect("source-read", _on_source_read)
    app.connect("autodoc-process-docstring", _keep_lines, priority=400)
    app.connect("autodoc-process-docstring", _give_lines_back, priority=600)
    return {"parallel_read_safe": True}
