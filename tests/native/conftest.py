from __future__ import annotations

from collections.abc import Iterator

import pytest

from dopant.native import library


@pytest.fixture(autouse=True)
def _chosen_anew(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What is forced is forced for one test alone."""
    monkeypatch.delenv(library.VARIABLE, raising=False)
    library.choice.cache_clear()
    library._load.cache_clear()
    yield
    library.choice.cache_clear()
    library._load.cache_clear()
