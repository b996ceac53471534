"""Options: the order of precedence, how variables are read, and that each field is documented."""

from __future__ import annotations

import ast
import itertools
import pickle
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from zmqpipeline import options
from zmqpipeline.errors import ConfigurationError
from zmqpipeline.options import Options, variable


def test_the_order_of_precedence() -> None:
    """A flag beats a variable, a variable beats an argument, an argument beats the default."""
    argument = Options(drain_timeout=1.0, linger=1.0, idle_timeout=1.0)
    found = Options.from_environ(argument, {"ZMQPIPELINE_DRAIN_TIMEOUT": "2", "ZMQPIPELINE_LINGER": "2"})
    found = found.merge(drain_timeout=3.0, heartbeat_timeout=None)
    assert (found.drain_timeout, found.linger, found.idle_timeout, found.heartbeat_timeout) == (3.0, 2.0, 1.0, 2.0)
    assert argument == Options(drain_timeout=1.0, linger=1.0, idle_timeout=1.0)


def test_nothing_given_is_the_default() -> None:
    """Without variables, or with empty or foreign ones, the defaults hold."""
    assert Options.from_environ(None, {"ZMQPIPELINE_LINGER": " ", "ZMQPIPELINE_OTHER": "x", "LINGER": "9"}) == Options()
    assert Options().merge(linger=None) == Options()


@pytest.mark.parametrize(
    ("field", "text", "value"),
    [
        ("endpoint", "tcp://localhost:5550", "tcp://localhost:5550"),
        ("endpoint", "none", None),
        ("journal", "folder/run.db", "folder/run.db"),
        ("journal", "none", None),
        ("keys", "folder/keys", "folder/keys"),
        ("keys", "none", None),
        ("encryption", "REQUIRED", "required"),
        ("insecure", "1", True),
        ("drain_timeout", "0.5", 0.5),
        ("idle_timeout", "10", 10.0),
        ("idle_timeout", "None", None),
        ("max_prefetch", "0", 0),
        ("max_message_bytes", " 1000 ", 1000),
        ("log_level", "DEBUG", "debug"),
        ("log_json", "1", True),
        ("log_json", "Yes", True),
        ("log_json", "true", True),
        ("log_json", "0", False),
        ("log_json", "no", False),
        ("log_json", "FALSE", False),
    ],
)
def test_a_variable_is_read_by_the_type_of_its_field(field: str, text: str, value: object) -> None:
    """Each kind of field is read from text, over an argument that says otherwise."""
    base = Options(endpoint="ipc://x", idle_timeout=1.0, log_json=not value)
    assert getattr(Options.from_environ(base, {variable(field): text}), field) == value


@pytest.mark.parametrize(
    ("field", "text", "expected"),
    [
        ("endpoint", "tpc://x:1", "did you mean tcp://x:1"),
        ("drain_timeout", "soon", "a number of seconds"),
        ("drain_timeout", "-1", "a number of seconds"),
        ("drain_timeout", "nan", "a number of seconds"),
        ("drain_timeout", "none", "a number of seconds"),
        ("idle_timeout", "x", "or none"),
        ("max_prefetch", "1.5", "a whole number"),
        ("max_prefetch", "-1", "a whole number"),
        ("log_level", "loud", "debug, info, warning, error"),
        ("encryption", "require", "auto, required, off"),
        ("log_json", "maybe", "1, true, yes, 0, false, no"),
    ],
)
def test_a_bad_variable_is_named(field: str, text: str, expected: str) -> None:
    """A variable that cannot be read is a usage error with its name, its value and what is expected."""
    with pytest.raises(ConfigurationError) as caught:
        Options.from_environ(None, {variable(field): text})
    for part in (f"ZMQPIPELINE_{field.upper()}", repr(text), expected):
        assert part in str(caught.value)


def test_a_flag_that_is_no_field_is_an_error() -> None:
    """A misspelt field is not dropped in silence."""
    with pytest.raises(TypeError, match="drain_timout"):
        Options().merge(drain_timout=1.0)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_held_items", 0),  # a worker could hold nothing: the run would stand still
        ("max_held_bytes", 0),
        ("idle_timeout", 0.0),  # a worker would leave before its first item
        ("heartbeat_timeout", 7000.0),  # more than libzmq takes
        ("linger", 1e9),
        ("drain_timeout", float("nan")),
        ("drain_timeout", "25"),
        ("max_message_bytes", True),
    ],
)
def test_a_number_out_of_its_bounds_is_refused(field: str, value: Any) -> None:
    """What would make a run hang, or libzmq refuse its sockets, is refused by name, with the bounds."""
    with pytest.raises(ConfigurationError, match=rf"The option {field} is .* from .* to .*ZMQPIPELINE_{field.upper()}"):
        Options(**{field: value})


def test_a_misspelt_encryption_is_refused() -> None:
    """The word "require" must not be taken for "auto"."""
    with pytest.raises(ConfigurationError, match=r"'require'.*auto, required, off.*ZMQPIPELINE_ENCRYPTION"):
        Options(encryption="require")


def test_options_are_frozen_and_travel() -> None:
    """Options are an argument of child processes and cannot be changed behind a role's back."""
    assert pickle.loads(pickle.dumps(Options(linger=1.0))) == Options(linger=1.0)
    with pytest.raises(AttributeError):
        Options().linger = 2.0  # type: ignore[misc]


def test_every_field_has_a_docstring_and_can_be_read() -> None:
    """Each field is followed by its docstring, and none has a type that no variable could be read as.

    Any text names a file, or a run.
    """
    tree = ast.parse(Path(options.__file__).read_text(encoding="utf-8"))
    body = next(node for node in tree.body if isinstance(node, ast.ClassDef)).body
    documented = {
        field.target.id
        for field, text in itertools.pairwise(body)
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(text, ast.Expr)
    }
    assert documented == {field.name for field in fields(Options)}
    assert Options.from_environ(None, {"ZMQPIPELINE_OBSERVERS": "print"}).observers == ()
    for field in fields(Options):
        if field.name in options.IN_PROGRAMS:
            continue
        environ = {variable(field.name): "\N{SNOWMAN}"}
        if field.name in ("journal", "run_id", "keys"):
            assert getattr(Options.from_environ(None, environ), field.name) == "\N{SNOWMAN}"
            continue
        with pytest.raises(ConfigurationError):
            Options.from_environ(None, environ)


async def later(event: object) -> None:
    """Is called by nobody who would await it."""


class Later:
    """Is called as that one."""

    async def __call__(self, event: object) -> None:
        """Do nothing."""


@pytest.mark.parametrize("given", [print, "print", [print, 3], {print}, None, [later], [Later()]])
def test_observers_are_a_list_of_functions(given: Any) -> None:
    """One function is no list, and a list holds nothing else."""
    with pytest.raises(ConfigurationError, match=r"The option observers is .* It must be a list of functions"):
        Options(observers=given)


def test_observers_stay_as_they_were_given() -> None:
    """Whoever changes his list does not change the options; variables and flags leave them alone."""
    mine = [print]
    options = Options(observers=mine)
    mine.clear()
    assert options.observers == (print,)
    assert Options.from_environ(options, {"ZMQPIPELINE_LINGER": "1"}).merge(journal="j").observers == (print,)
