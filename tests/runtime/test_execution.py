"""What a thread executes: an item for which there is no memory fails, and costs neither thread nor neighbours."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support.transports import peer_process

PROGRAM = """
import json
import resource
import sys
from pathlib import Path

from tests.support.transports import Posts
from zmqpipeline.protocol.commands import Execute
from zmqpipeline.protocol.events import Executed, Running
from zmqpipeline.serialization.packed import Packed
from zmqpipeline.runtime.threads.execution import Execution
from zmqpipeline.runtime.threads.pool import Pool
from zmqpipeline.serialization.pack import pack

posts = Posts()
pool = Pool(1, Execution(len, lambda: lambda size: b"%d" % size), posts)

def execute(payloads, numbers):
    pool.submit(Execute("C", 1, 0.0, numbers, payloads))
    done, failed = {}, {}
    while len(done) + len(failed) < len(numbers):
        event = posts.next()
        if isinstance(event, Running):
            continue
        assert isinstance(event, Executed), event
        done.update(zip(event.numbers, map(bytes.decode, event.payloads)))
        failed.update((number, trouble.error) for number, trouble in event.failures)
    return [done, failed]

values = [pack(b"x"), pack(eval(sys.argv[2])), pack(b"zz")]
payloads = Packed(3, b"".join(values)) if sys.argv[1] == "end to end" else values
execute([pack(b"")], [0])
# from here on there is memory for little more than there is now
pages = int(Path("/proc/self/statm").read_text().split()[0])
limit = pages * resource.getpagesize() + (16 << 20)
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
first = execute(payloads, [1, 2, 3])
print(json.dumps([first, execute([pack(b"more")], [4])]), flush=True)
pool.close(5.0)
"""


# these need eight times as much opened as packed
MANY = "[0] * (8 << 20)"


@pytest.mark.parametrize("form", ["end to end", "one by one"])
def test_an_item_for_which_memory_runs_out_while_it_is_opened_fails_alone(form: str) -> None:
    """The system gives no more memory: the large item of three fails, and the thread goes on."""
    first, then = executed(form, MANY)
    assert first == [{"1": "1", "3": "2"}, {"2": "MemoryError"}]
    assert then == [{"4": "4"}, {}]


def test_items_fail_together_for_which_there_is_no_memory_to_part_them() -> None:
    """Neither are they lost, nor is the thread."""
    first, then = executed("end to end", "bytes(64 << 20)")
    assert first == [{}, dict.fromkeys("123", "MemoryError")]
    assert then == [{"4": "4"}, {}]


def executed(form: str, large: str) -> Any:
    """What came of three items, the second of which is large, and of one more."""
    with peer_process(PROGRAM, form, large) as process:
        assert process.stdout is not None
        return json.loads(process.stdout.readline())
