from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dopant.errors import RecipeError
from dopant.recipes.overrides import arguments, flags
from dopant.recipes.read import kept_text, read_recipe, recipe_from, recipe_from_text, resolved_yaml
from dopant.recipes.schema import Recipe
from dopant.recipes.text import read_yaml, write_yaml

MANY = """\
model: smal
method: doped-kroneker
learning_rate: 3
target: 0.5x
count: parameter
training:
  lerning_rate: 1e-3
  epochs: true
  batch: "20"
  sparsify: {begin: 2}
targets:
  - re:(
  - {patern: x}
seed: -1
seed: 2
"""


def mistakes(text: str, *overrides: str) -> list[str]:
    with pytest.raises(RecipeError) as error:
        recipe_from_text(text, overrides, "r.yaml")
    return [line.strip() for line in str(error.value).splitlines()]


def test_all_mistakes_at_once_each_with_its_place() -> None:
    found = mistakes(MANY, "training.epochz=3", "model.hidden=x", "nothing")
    expected = [
        "r.yaml has 17 mistakes:",
        "--set model.hidden=x: input should be a valid integer, got 'x'",
        "--set nothing: an override is written as key.of.key=value",
        "--set training.epochz=3: unknown key; did you mean 'epochs'?",
        "r.yaml:1: model.size: size 'smal' is not known; choose one of tiny, small, medium, large",
        "r.yaml:2: method: method 'doped-kroneker' is not known; did you mean 'doped-kronecker'?",
        "r.yaml:3: learning_rate: unknown key; did you mean 'training.learning_rate'?",
        "r.yaml:4: target: target 0.5x is below 1x",
        "r.yaml:5: count: input should be 'parameters' or 'bytes', got 'parameter'; did you mean 'parameters'?",
        "r.yaml:7: training.lerning_rate: unknown key; did you mean 'learning_rate'?",
        "r.yaml:8: training.epochs: input should be a valid integer, got True",
        "r.yaml:9: training.batch: input should be a valid integer, got '20'",
        "r.yaml:10: training.sparsify.begin: input should be less than or equal to 1, got 2",
        "r.yaml:12: targets.0: pattern 're:(' is no regular expression",
        "r.yaml:13: targets.1.patern: unknown key; did you mean 'pattern'?",
        "r.yaml:13: targets.1.pattern: is missing",
        "r.yaml:14: seed: input should be greater than or equal to 0, got -1",
        "r.yaml:15: seed: given twice, first in line 14; keep one of the two",
    ]
    assert len(found) == len(expected)
    for line, start in zip(found, expected, strict=True):
        assert line.startswith(start)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "r.yaml: the recipe is empty"),
        ("# nothing\n", "the recipe is empty"),
        ("- a\n- b\n", "r.yaml:1: a recipe is a mapping"),
        ("just words\n", "a recipe is a mapping"),
        ("seed: 1\nmodel: [\n", "r.yaml:3: not valid YAML"),
        ("seed: 1\n\tx: 2\n", "r.yaml:2: not valid YAML"),
        ("seed: \x07\n", "not valid YAML: the character"),
        ("seed: 1\n---\nseed: 2\n", "r.yaml:2: a recipe is one document"),
        ("a: &a [x, x]\nb: [*a, *a]\n", "r.yaml:1: anchors and aliases are not allowed"),
        ("description: !!python/object/apply:os.system [echo]\n", "r.yaml:1: the tag"),
        ("description: !!str 3\n", "r.yaml:1: the tag"),
        ("structure: " + "[" * 40 + "]" * 40 + "\n", "nested more than 32 deep"),
        ("structure: " + "{a: " * 5000 + "}" * 5000 + "\n", "nested more than 32 deep"),
        ("description: " + "x" * 1_000_001, "at most 1,000,000 characters"),
        ("seed: " + "9" * 5000 + "\n", "a number of 5000 digits is too long"),
        ("1: 2\n", "r.yaml:1: keys are text, got 1"),
        ("? [a]\n: 2\n", "r.yaml:1: keys are text, got a collection"),
        ("training: {learning_rate: .inf}\n", "training.learning_rate: numbers in a recipe are finite, got .inf"),
        ("training: {learning_rate: 1e999}\n", "numbers in a recipe are finite"),
        ("training: 3\n", "r.yaml:1: training: input should be a valid dictionary"),
        ("target: 25x\ntarget_bytes: 1MB\n", "r.yaml:2: target_bytes: target 25x is given too"),
        ("target: true\n", "r.yaml:1: target: target True is no number"),
        ("scope: lstms\n", "r.yaml:1: scope: scope 'lstms' is not known"),
        ("ignore: ['re:[']\n", "r.yaml:1: ignore.0: pattern 're:[' is no regular expression"),
        ("method: lmf\nstructure: {shapes: [[2, 2], [2, 2]]}\n", "r.yaml:2: structure: method 'lmf' has no use for"),
        (
            "structure:\n  terns: 2\n",
            "r.yaml:1: structure: option 'terns' is not known; did you mean 'terms'",
        ),
        ("structure: {kind: dens}\n", "'dens' is unknown"),
        ("training:\n  sparsify:\n    begin: 0.6\n    end: 0.5\n", "training.sparsify: end 0.5 lies before begin 0.6"),
        ("tokenizer: {knd: word}\n", "did you mean 'kind'?"),
        ("start: warm\n", "r.yaml:1: start: input should be 'scratch' or 'dense', got 'warm'"),
    ],
)
def test_what_is_no_recipe(text: str, message: str) -> None:
    assert message in " ".join(mistakes(text))


def test_scalars_follow_yaml_1_2() -> None:
    text = "a: 1e-3\nb: yes\nc: 12:30\nd: 010\ne: 0o7\nf: 2024-01-01\ng: ~\nh: True\ni: -1.5E3\nj: 25x\nk: 1_000\n"
    assert read_yaml(text, "x").data == {
        "a": 0.001,
        "b": "yes",
        "c": "12:30",
        "d": 10,
        "e": "0o7",
        "f": "2024-01-01",
        "g": None,
        "h": True,
        "i": -1500.0,
        "j": "25x",
        "k": "1_000",
    }


@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(10**20), 10**20)
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
        max_leaves=12,
    )
)
def test_what_is_written_is_read_back(data: Any) -> None:
    document = read_yaml(write_yaml({"data": data}), "x")
    assert document.mistakes == []
    assert document.data == {"data": data}
    assert repr(document.data) == repr({"data": data})


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"model": "medium", "method": "hmf", "target": 10.5, "seed": 3},
        {"model": "tiny", "target_bytes": "1.2MB", "description": "yes: 'no' #\n\t1e3 é"},
        {
            "structure": {
                "kind": "doped",
                "base": {"kind": "low_rank", "rank": 2},
                "overlay": {"kind": "sparse", "nonzeros": 9},
            },
            "targets": ["re:lstm.*", {"pattern": "decoder.weight", "method": "lmf"}],
            "ignore": ["re:.*hr.*"],
            "training": {"learning_rate": 1e-5, "decay": 1 / 1.15},
        },
    ],
)
def test_a_resolved_recipe_reads_back_as_itself(data: dict[str, Any]) -> None:
    recipe = recipe_from(data)
    text = resolved_yaml(recipe)
    assert recipe_from_text(text) == recipe
    assert resolved_yaml(recipe_from_text(text)) == text
    assert set(read_yaml(text, "x").data) == set(Recipe.model_fields)


def test_a_kept_recipe_is_compared_by_what_it_says(tmp_path: Path) -> None:
    recipe, file = recipe_from({"model": "tiny"}), tmp_path / "recipe.yaml"
    assert kept_text(file, recipe) is None
    text = resolved_yaml(recipe)
    for kept in (text, text.replace("    allocation: each\n", ""), "model: tiny\n"):
        file.write_text(kept)
        assert kept_text(file, recipe) == kept
    for other in ("model: small\n", text + "new: 1\n", ""):
        file.write_text(other)
        assert kept_text(file, recipe) is None
    file.write_bytes(b"model: \xff\n")
    assert kept_text(file, recipe) is None


def test_overrides() -> None:
    recipe = recipe_from_text(
        "model: tiny\ntargets: [re:a.*, re:b.*]\n",
        [
            "model.hidden=64",
            "training.sparsify.end=0.7",
            "training.learning_rate=1e-2",
            "target=10x",
            "targets.1=re:c.*",
            "ignore=[decoder.weight]",
            "tokenizer.kind=character",
            "description=a = b",
        ],
    )
    assert (recipe.model.size, recipe.model.hidden) == ("tiny", 64)
    assert recipe.training.sparsify.end == 0.7
    assert recipe.training.learning_rate == 0.01
    assert recipe.target == "10x"
    assert [rule.pattern for rule in recipe.targets or ()] == ["re:a.*", "re:c.*"]
    assert recipe.ignore == ["decoder.weight"]
    assert recipe.tokenizer.kind == "character"
    assert recipe.description == "a = b"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("=3", "an override is written as"),
        ("a..b=3", "an override is written as"),
        ("ignore=[a", "put text with special characters in quotes"),
        ("ignore=*a", "put text with special characters in quotes"),
        ("seed.x=3", "--set seed.x=3: seed: is 1 and has no keys"),
        ("targets.2=x", "targets: the list has 1 items, numbered from 0; got '2'"),
        ("targets.0.pattern=x", "targets.0: is 're:a' and has no keys"),
        ("sed=3", "--set sed=3: unknown key; did you mean 'seed'?"),
        ("storage.values=int2", "--set storage.values=int2: input should be"),
    ],
)
def test_wrong_overrides(override: str, message: str) -> None:
    assert message in " ".join(mistakes("seed: 1\ntargets: ['re:a']\n", override))


def test_a_mistake_from_outside_is_not_called_the_recipes() -> None:
    assert mistakes("seed: 1\n", *flags(target="0.5x"))[0].startswith("--target 0.5x: target 0.5x is below 1x, which")
    assert mistakes("seed: 1\n", *arguments(target=0.5))[0].startswith("target=0.5: target 0.5x is below 1x, which")
    assert mistakes("seed: 1\n", "training.epochs=x") == [
        "--set training.epochs=x: input should be a valid integer, got 'x'"
    ]
    found = mistakes("seed: 1\n", *flags(values="int2", count="stones"))
    assert found[0] == "2 settings have mistakes:"
    assert found[1].startswith("--count stones: input should be 'parameters' or 'bytes', got 'stones'")
    assert found[2].startswith("--values int2: input should be")
    assert mistakes("sed: 1\n", *flags(count="stones"))[0] == "r.yaml has 2 mistakes:"


def test_overrides_leave_the_callers_mapping_alone() -> None:
    data = {"training": {"epochs": 2}}
    assert recipe_from(data, ["training.epochs=3"]).training.epochs == 3
    assert data == {"training": {"epochs": 2}}


def test_a_folder_does_not_hide_a_shipped_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("lmf").mkdir()  # as compare leaves one for each method
    assert read_recipe("lmf").method == "lmf"


def test_files(tmp_path: Path) -> None:
    file = tmp_path / "r.yaml"
    file.write_text("\ufeffmethod: lmf\n", encoding="utf-8")
    assert read_recipe(file).method == "lmf"
    file.write_text("mehtod: lmf\n")
    with pytest.raises(RecipeError, match=rf"{file}:1: mehtod: unknown key; did you mean 'method'"):
        read_recipe(file)
    for content in (b"\xff\xfe\x00", b"description: \xe9\n"):
        file.write_bytes(content)
        with pytest.raises(RecipeError, match="is not UTF-8 text"):
            read_recipe(file)
    with pytest.raises(RecipeError, match="cannot be read: Is a directory"):
        read_recipe(tmp_path)
    for name in ("nowhere.yaml", "a\0b", "x" * 5000):
        with pytest.raises(RecipeError):
            read_recipe(name)
