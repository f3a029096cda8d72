from __future__ import annotations

import pytest

from dopant.cost import Storage
from dopant.errors import InputError


@pytest.mark.parametrize("fields", [{"values": "int2"}, {"indices": "zip"}])
def test_a_storage_that_is_not_known(fields: dict[str, str]) -> None:
    with pytest.raises(InputError, match=f"storage {next(iter(fields))} '.*' is not known; choose one of"):
        Storage(**fields)  # type: ignore[arg-type]
