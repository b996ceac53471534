"""Task types: registered before use, strings afterwards."""

from __future__ import annotations

import pickle
import subprocess
import sys

import pytest

from zmqpipeline.app import Pipeline
from zmqpipeline.errors import ConfigurationError, PipelineError, TaskTypeError
from zmqpipeline.protocol.fields import MAX_NAME
from zmqpipeline.roles.task_type import TaskType, why_no_name


def test_a_registered_type_is_a_string() -> None:
    """A registered name becomes a TaskType that is equal to the name and may be a key in its place."""
    TaskType.register_type("tasktype-C")
    found = TaskType("tasktype-C")
    assert isinstance(found, str)
    assert {found: 1}["tasktype-C"] == 1


def test_registering_again_is_no_error() -> None:
    """Modules that are imported twice may register the same name twice."""
    TaskType.register_type("tasktype-twice")
    TaskType.register_type("tasktype-twice")
    assert TaskType("tasktype-twice") == "tasktype-twice"


def test_a_registered_type_may_be_registered_and_made_again() -> None:
    """A TaskType is a name like any other string."""
    TaskType.register_type("tasktype-again")
    TaskType.register_type(TaskType("tasktype-again"))
    assert TaskType(TaskType("tasktype-again")) == "tasktype-again"


def test_an_unregistered_type_is_refused_with_the_nearest_name() -> None:
    """A misspelt name is a TypeError that proposes the registered one."""
    TaskType.register_type("tasktype-resize")
    with pytest.raises(TaskTypeError, match="did you mean 'tasktype-resize'"):
        TaskType("tasktype-rezise")


def test_an_unregistered_type_is_refused_with_what_to_do() -> None:
    """A name that is near none is refused with the call that registers it."""
    with pytest.raises(TypeError, match=r"register_type\('0123456789'\)") as caught:
        TaskType("0123456789")
    assert isinstance(caught.value, PipelineError)


@pytest.mark.parametrize("name", ["x" * (MAX_NAME + 1), "lone \udcff"])
def test_a_name_that_no_message_takes_is_refused_where_it_is_given(name: str) -> None:
    """Its worker's words would be dropped, and its run would wait for ever."""
    with pytest.raises(TaskTypeError, match=r"at most 4096 characters|lone surrogate"):
        TaskType.register_type(name)
    with pytest.raises(ConfigurationError, match=r"at most 4096 characters|lone surrogate"):
        Pipeline(name)
    assert not why_no_name("x" * MAX_NAME)


@pytest.mark.parametrize("name", ["", None, 7, b"C", ["C"]])
@pytest.mark.parametrize("call", [TaskType, TaskType.register_type])
def test_what_is_no_name_is_refused(call: type[TaskType], name: str) -> None:
    """Something that is no string, or an empty one, can be neither registered nor used."""
    with pytest.raises(TaskTypeError):
        call(name)


def test_a_type_that_travels_registers_itself() -> None:
    """A TaskType unpickled in a new process is valid there without another call."""
    TaskType.register_type("tasktype-travels")
    frame = pickle.dumps(TaskType("tasktype-travels"))
    code = f"import pickle; from zmqpipeline import TaskType; print(TaskType(str(pickle.loads({frame!r}))))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.stderr) == ("tasktype-travels", "")
