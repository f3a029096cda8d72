from __future__ import annotations

from dopant.cli.options import METHODS, overrides
from dopant.plan import METHODS as KNOWN
from dopant.recipes.overrides import Override
from dopant.recipes.read import recipe_from


def test_the_help_names_all_methods() -> None:
    assert METHODS.split(", ") == list(KNOWN)


def test_flags_become_settings_and_set_wins() -> None:
    found = overrides(["seed=9"], target_bytes="1kB", seed=3)
    assert found == [
        Override("target", None, "--target-bytes 1kB"),
        Override("target_bytes", "1kB", "--target-bytes 1kB"),
        Override("seed", 3, "--seed 3"),
        "seed=9",
    ]
    assert recipe_from({}, found).seed == 9


def test_flags_that_were_not_given_are_left_to_the_recipe() -> None:
    assert overrides(None, target=None) == []
