"""For all tests."""

from __future__ import annotations

import os

# Of torch, in each of the processes that share the tests, and in those that tests start: threads that wait for each
# other's cores take five times as long.
os.environ.setdefault("OMP_NUM_THREADS", "1")
