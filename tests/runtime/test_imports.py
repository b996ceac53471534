"""`many_imports`: nothing is looked for in it, and then it is as it was."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from zmqpipeline.runtime.imports import many_imports


@pytest.fixture(autouse=True)
def gc_on() -> Iterator[None]:
    """The collector of cycles is on before and after."""
    gc.enable()
    yield
    gc.enable()


def test_nothing_is_looked_for_in_the_block() -> None:
    """Nor in a block within it, nor after that."""
    with many_imports():
        assert not gc.isenabled()
        with many_imports():
            assert not gc.isenabled()
        assert not gc.isenabled()
    assert gc.isenabled()


def test_it_is_as_it_was_after_an_import_that_fails() -> None:
    """The error is the importer's."""
    with pytest.raises(ImportError), many_imports():
        raise ImportError
    assert gc.isenabled()


def test_a_program_that_has_switched_it_off_keeps_it_off() -> None:
    """For good."""
    gc.disable()
    with many_imports():
        assert not gc.isenabled()
    assert not gc.isenabled()
