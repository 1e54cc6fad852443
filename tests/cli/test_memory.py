"""What a process keeps of the memory of large messages, in processes of its own."""

import platform
import subprocess
import sys

import pytest

ROUNDS = 100
PROGRAM = f"""
import resource
from sluice.memory import keep_freed_memory
{{}}
def copies():  # of a megabyte, as many at a time as a message has on its way
    return [bytes(1 << 20) for _ in range(6)]
copies()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range({ROUNDS}):
    copies()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def pages(call: str) -> int:
    """The pages that the system had to give for the same memory again and again."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(call)], capture_output=True, text=True, check=True, timeout=60
    )
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have no such setting")
def test_the_memory_of_a_megabyte_is_used_again_rather_than_asked_for_anew():
    assert pages("keep_freed_memory()") * 5 < pages("")
