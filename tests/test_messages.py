"""The frames of `zmqpipeline.messages`, the serializer, and the way out of a process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import date, datetime, timedelta, timezone
from typing import Any

import pytest

import zmqpipeline
import zmqpipeline.messages
import zmqpipeline.utils.messages
from zmqpipeline.errors import SerializeError, WireError
from zmqpipeline.protocol import codec
from zmqpipeline.utils import messages, serializer

CREATORS = [
    (messages.create_ack, "ACK"),
    (messages.create_success, "SUCCESS"),
    (messages.create_failure, "FAILURE"),
    (messages.create_ready, "READY"),
    (messages.create_end, "END"),
    (messages.create_empty, "EMPTY"),
]


@pytest.mark.parametrize(("create", "kind"), CREATORS)
def test_get_undoes_the_create_functions(create: Callable[..., bytes], kind: str) -> None:
    """What was put into a frame, or its defaults, come out of it again, with the type of the message."""
    assert messages.get(create("C", {"n": (1, 2)})) == ({"n": (1, 2)}, "C", kind)
    assert messages.get(create()) == ("", "", kind)
    assert kind == getattr(messages, f"MESSAGE_TYPE_{kind}")


def test_get_undoes_create_data_metadata_and_create() -> None:
    """The three functions with an order of arguments of their own are undone as well."""
    assert messages.get(messages.create_data("C", {"n": 1})) == ({"n": 1}, "C", messages.MESSAGE_TYPE_DATA)
    assert messages.get(messages.create_metadata({"m": 1})) == ({"m": 1}, "", messages.MESSAGE_TYPE_META_DATA)
    frame = messages.create(None, "C", messages.MESSAGE_TYPE_END)
    assert isinstance(frame, bytes)
    assert messages.get(frame) == (None, "C", messages.MESSAGE_TYPE_END)


@pytest.mark.parametrize(
    "when",
    [
        datetime(2014, 7, 1, 12, 30, 15, 123456),
        datetime(2014, 10, 26, 1, 30, fold=1),
        datetime(2014, 7, 1, 12, 30, 15, 1, tzinfo=timezone.utc),
        datetime(2014, 7, 1, tzinfo=timezone(timedelta(hours=5, minutes=30))),
        date(2014, 7, 1),
        timedelta(days=-1, microseconds=1),
    ],
    ids=repr,
)
def test_times_come_out_of_a_frame_as_they_went_in(when: Any) -> None:
    """Naive or aware, to the microsecond, with the fold; a date is no datetime."""
    for frame in (messages.create_data("C", {"when": [when]}), messages.create_ack("C", {"when": [when]})):
        (found,) = messages.get(frame)[0]["when"]
        assert (found, type(found)) == (when, type(when))
        assert [getattr(found, name, None) for name in ("fold", "tzinfo")] == [
            getattr(when, name, None) for name in ("fold", "tzinfo")
        ]
        assert serializer.deserialize(serializer.serialize(when)) == when


def test_frames_are_small() -> None:
    """An item of two numbers and a short text takes some thirty bytes, its words included: a third less than JSON."""
    data = {"n": 12, "share": 0.5, "name": "item"}
    frame = messages.create_data("C", data)
    assert len(frame) <= 40
    assert len(frame) < 0.75 * len(json.dumps(["DATA", "C", data]))


def test_all_types_differ() -> None:
    """A handler can tell the eight types apart."""
    assert len(set(messages.MESSAGE_TYPES)) == 8


def test_both_import_paths_are_one() -> None:
    """`zmqpipeline.messages` offers what `zmqpipeline.utils.messages` does, as an attribute and as a module."""
    names = {name for name in vars(messages) if name.startswith(("MESSAGE_", "create", "get"))}
    assert names == set(zmqpipeline.messages.__all__)
    for name in names:
        assert getattr(zmqpipeline.messages, name) is getattr(zmqpipeline.utils.messages, name)


@pytest.mark.parametrize("frame", [b"", b"\xc1", serializer.serialize([1, 2, 3]), serializer.serialize({"a": 1})])
def test_foreign_frames_are_refused(frame: bytes) -> None:
    """Bytes that no create function made are an error, not data."""
    with pytest.raises(SerializeError):
        messages.get(frame)


def test_a_frame_is_checked_when_it_is_made() -> None:
    """An unknown message type, a task that is no string and data that cannot be packed are refused at once."""
    for data, task, kind in (({}, "C", "HELLO"), ({}, 7, messages.MESSAGE_TYPE_DATA), ({"a": object()}, "C", "DATA")):
        with pytest.raises(SerializeError):
            messages.create(data, task, kind)  # type: ignore[arg-type]


def test_deserialize_undoes_serialize() -> None:
    """The serializer of the first edition is the serializer of this one."""
    assert serializer.deserialize(serializer.serialize({"a": [1, None, b"x"]})) == {"a": [1, None, b"x"]}


def test_kill_current_process_flushes_and_ends_with_status_0() -> None:
    """What was printed and logged arrives, a thread that never ends does not keep the process, and the status is 0."""
    code = (
        "import logging, logging.handlers, threading\n"
        "from zmqpipeline.utils import shutdown\n"
        "target = logging.StreamHandler()\n"
        "logging.getLogger('x').addHandler(logging.handlers.MemoryHandler(100, target=target))\n"
        "threading.Thread(target=threading.Event().wait).start()\n"
        "logging.getLogger('x').warning('logged')\n"
        "print('printed', end='')\n"
        "shutdown.kill_current_process()\n"
        "print('never')\n"
    )
    # without the variable that would leave nothing to flush
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, env=environ)
    assert (done.returncode, done.stdout, done.stderr) == (0, "printed", "logged\n")


def test_kill_current_process_bears_a_closed_stdout() -> None:
    """A process whose output is closed ends with status 0 as well."""
    code = "import sys; sys.stdout.close(); from zmqpipeline.utils.shutdown import kill_current_process as k; k()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    "frame",
    [messages.create_data("C", {"n": 1}), messages.create_ready(), messages.create_end(), messages.create_ack()],
)
def test_no_role_takes_these_frames_for_its_own(frame: bytes) -> None:
    """What the roles say to each other is another language: such a frame is dropped, and is no message of it."""
    with pytest.raises(WireError):
        codec.decode([frame])
