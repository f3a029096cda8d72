from __future__ import annotations

from dopant.cli.options import METHODS, overrides
from dopant.plan import METHODS as KNOWN


def test_the_help_names_all_methods() -> None:
    assert METHODS.split(", ") == list(KNOWN)


def test_flags_become_settings_and_set_wins() -> None:
    found = overrides(["seed=9"], target="25x", values="int8", seed=3)
    assert found == ["target=25x", "storage.values=int8", "seed=3", "seed=9"]


def test_flags_that_were_not_given_are_left_to_the_recipe() -> None:
    assert overrides(None) == []
