"""What the files of a run and of its tests are called.

Standard library alone, for the helper uses these names, too.
"""

from __future__ import annotations

import posixpath
from typing import Final

#: A run's directory, below the root directory of the tests.
DEFAULT_ARTIFACTS: Final = "eventlet-debug"

#: In the run's directory.
RUN_FILE: Final = "run.json"
RESULTS_FILE: Final = "results.json"
PAGE_FILE: Final = "index.html"
LOCK_FILE: Final = ".lock"
#: The byte of it that a helper holds until it has completed all, as ``lockf()`` takes it: a length
#: and where it begins.
COMPLETION_LOCK: Final = (1, 1)
IGNORE_FILE: Final = ".gitignore"

#: In the directory of each test; the recordings in those of its blocks, too.
TEST_FILE: Final = "test.json"
STRACE_FILE: Final = "strace.txt"
CAPTURE_FILE: Final = "capture.pcapng"
#: Long ones, once they are completed.
PACKED_STRACE_FILE: Final = "strace.txt.gz"
PACKED_CAPTURE_FILE: Final = "capture.pcapng.gz"
TRACE_FILES: Final = (STRACE_FILE, PACKED_STRACE_FILE)
CAPTURE_FILES: Final = (CAPTURE_FILE, PACKED_CAPTURE_FILE)
KEYS_FILE: Final = "tls-keys.txt"
#: What the next three are made of; it is gone then.
PROFILE_COUNTS_FILE: Final = "profile.counts"
PROFILE_FILE: Final = "profile.cprof"
CALLGRIND_FILE: Final = "profile.callgrind"
PROFILE_FACTS_FILE: Final = "profile.json"
FINDINGS_FILE: Final = "findings.json"
#: What the test process itself found out, for ``findings.json``.
STALLS_FILE: Final = "stalls.json"

#: What was alive as a test failed, and what was seen of one that hung.
TASKS_FILE: Final = "tasks.txt"
HANG_FILE: Final = "hang.txt"

#: What the HTML report shows of the recordings in a directory.
PART_FILE: Final = "report.js"

#: Directories of blocks that a test recorded with ``eventlet_trace``.
BLOCK_PREFIX: Final = "block-"


def test_of(directory: str) -> str:
    """Return the directory of the test that a directory belongs to: itself, unless a block's."""
    parent, name = posixpath.split(directory)
    number = name.removeprefix(BLOCK_PREFIX)
    return parent if number != name and number.isdigit() else directory
