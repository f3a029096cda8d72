from __future__ import annotations

from dopant.recipes.overrides import Override, arguments, flags
from dopant.recipes.read import recipe_from


def test_what_was_not_given_is_left_to_the_recipe() -> None:
    assert arguments(target=None, seed=None) == flags() == []
    assert flags(seed=0, values="int8", distill=0.5) == [
        Override("seed", 0, "--seed 0"),
        Override("storage.values", "int8", "--values int8"),
        Override("training.distillation.weight", 0.5, "--distill 0.5"),
    ]
    assert arguments(count="bytes") == [Override("count", "bytes", "count='bytes'")]


def test_a_target_takes_the_place_of_the_recipes() -> None:
    for data in ({"target": "25x"}, {"target_bytes": "1MB"}):
        given = recipe_from(data, flags(target_bytes="2kB"))
        assert (given.target, given.target_bytes) == (None, 2000)
        given = recipe_from(data, flags(target="3x"))
        assert (given.target, given.target_bytes) == ("3x", None)


def test_values_are_not_read_as_yaml() -> None:
    scope = "re:lstm[.]weight: #"
    assert recipe_from({}, flags(scope=scope)).scope == scope
