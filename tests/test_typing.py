"""What type checkers make of programs that use the library: mypy reads `tests/typing/`, and pyright, if it is there."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PROGRAMS = sorted((ROOT / "tests" / "typing").glob("*.py"))
MISTAKES = ROOT / "tests" / "typing" / "mistakes.py"
PYRIGHT = shutil.which("pyright", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))


SECONDS = 500.0
"""A checker reads all of the package, without what it has kept of it."""


def mypy_errors(tmp_path: Path) -> set[tuple[str, int]]:
    """File and line of each error that mypy --strict finds in the programs."""
    config = tmp_path / "mypy.ini"
    config.write_text("[mypy]\nstrict = true\nfollow_imports = silent\n")
    command = [sys.executable, "-m", "mypy", "--no-pretty", "--config-file", str(config)]
    command += ["--cache-dir", str(tmp_path / "cache"), *(str(one) for one in PROGRAMS)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=SECONDS)
    assert done.returncode in (0, 1), done.stderr
    found = re.findall(r"^(\S+?):(\d+): error: ", done.stdout, re.MULTILINE)
    return {(Path(name).name, int(line)) for name, line in found}


def pyright_errors(pyright: str, tmp_path: Path) -> set[tuple[str, int]]:
    """The same of pyright."""
    config = tmp_path / "pyrightconfig.json"
    config.write_text(
        json.dumps(
            {
                # pyright wants it relative to the file
                "include": [os.path.relpath(MISTAKES.parent, tmp_path)],
                "extraPaths": [str(ROOT)],
                "typeCheckingMode": "standard",
            }
        )
    )
    command = [pyright, "--outputjson", "--pythonpath", sys.executable, "--project", str(config)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=SECONDS)
    told = json.loads(done.stdout)["generalDiagnostics"]
    errors = [one for one in told if one["severity"] == "error"]
    return {(Path(one["file"]).name, one["range"]["start"]["line"] + 1) for one in errors}


def expected() -> set[tuple[str, int]]:
    """The lines that say that they are mistakes."""
    lines = MISTAKES.read_text().splitlines()
    found = {(MISTAKES.name, number) for number, line in enumerate(lines, 1) if "# mistake: " in line}
    assert len(found) >= 10
    return found


@pytest.mark.slow
@pytest.mark.timeout(SECONDS + 60)
def test_mypy_finds_each_mistake_and_nothing_else(tmp_path: Path) -> None:
    """Decorated functions keep their types, and what would be refused when it runs is refused before."""
    assert mypy_errors(tmp_path) == expected()


if PYRIGHT is not None:

    @pytest.mark.timeout(SECONDS + 60)
    def test_pyright_finds_the_same(tmp_path: Path) -> None:
        """Both of them read the types in the same way."""
        assert pyright_errors(str(PYRIGHT), tmp_path) == expected()


def test_the_package_says_that_it_is_typed() -> None:
    """Without the marker checkers would not look."""
    assert (ROOT / "zmqpipeline" / "py.typed").is_file()
