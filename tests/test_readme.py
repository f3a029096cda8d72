"""What the README promises: its Python runs as it stands, its tables are those of the records, its commands exist."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import dopant
from dopant.data import WordTokenizer
from dopant.errors import InputError
from dopant.models import LanguageModel, LanguageModelConfig
from dopant.storage import save

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "docs"))
import readme  # noqa: E402

README = (ROOT / "README.md").read_text()


class MyModel(nn.Module):
    """Somebody else's: it knows nothing of us."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(120, 32)
        self.lstm = nn.LSTM(32, 48, num_layers=2, batch_first=True)
        self.decoder = nn.Linear(48, 120)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.decoder(self.lstm(self.embedding(tokens))[0])


def test_the_python_example_runs_and_keeps_its_promise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    block = re.search(r"```python\n(.*?)```", README, re.DOTALL).group(1)
    code = block.replace('target="25x"', 'target="6x"')  # so small a model cannot be made 25 times smaller
    assert code != block
    names = {"MyModel": MyModel, "data": [torch.zeros(1)] * 10}
    exec(compile(code, "README.md", "exec"), names)
    tokens = torch.arange(12).view(2, 6)
    saved, loaded = names["before"], names["model"]
    assert torch.allclose(saved(tokens), loaded(tokens), atol=0.05)
    assert sum(p.numel() for p in loaded.parameters()) * 5 < sum(p.numel() for p in MyModel().parameters())


def test_the_example_of_a_runtime_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(dopant, "set_threads", lambda count: None)  # of the whole process
    tokenizer = WordTokenizer.from_text("the cat sat on the mat and the dog sat too\n" * 9)
    model = LanguageModel(LanguageModelConfig(tokenizer.size, 8)).eval()
    (tmp_path / "runs").mkdir()
    save(tmp_path / "runs" / "small", model, tokenizer=tokenizer)
    block = re.findall(r"```python\n(.*?)```", README, re.DOTALL)[1].replace("step([17])", "step([1])")
    names = {"dopant": dopant}
    exec(compile(block, "README.md", "exec"), names)
    assert names["logits"].shape == (1, tokenizer.size)
    assert set(names["text"].split()) <= set(tokenizer.vocabulary)


@pytest.mark.parametrize("page", readme.PAGES, ids=lambda page: page.name)
def test_tables_come_from_records(page: Path) -> None:
    assert page.read_text() == readme.filled(page.read_text(), page), f"{page.name} is stale; run make readme"


def test_some_rows_of_a_table_are_chosen_by_name() -> None:
    whole, some = (
        readme.filled(f"<!-- table: results/ptb-small/report.json{rows} -->\n<!-- /table -->").splitlines()
        for rows in ("", " rows=pruning,lmf")
    )
    labels = [line.split("|")[1].strip(" *-") for line in some if line.startswith("|")]
    assert labels == ["method", "", "Magnitude pruning", "Low rank (LMF)"]
    assert len(whole) > len(some)
    with pytest.raises(KeyError, match="mistyped"):
        readme.filled("<!-- table: results/ptb-small/report.json rows=mistyped -->\n<!-- /table -->")


def test_the_table_of_an_experiment_that_was_not_run_yet_says_how_to_make_it() -> None:
    filled = readme.filled("<!-- table: results/ptb-small/none.json -->\n<!-- /table -->")
    assert "*Not measured yet: `dopant results experiments/ptb-small` makes it.*" in filled
    with pytest.raises(InputError, match="cannot read"):  # a record of nothing that can be made is a mistake
        readme.filled("<!-- table: results/mistyped/report.json -->\n<!-- /table -->")


def test_the_paths_of_a_row_are_drawn_where_a_page_links_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = "results/ptb-small/doped-kronecker-seed0.json"
    (tmp_path / record).parent.mkdir(parents=True)
    (tmp_path / record).write_bytes((ROOT / record).read_bytes())
    for name in ("images", "experiments"):
        (tmp_path / "docs" / name).mkdir(parents=True)
    monkeypatch.setattr(readme, "ROOT", tmp_path)
    page = f"<!-- paths: {record} -->\n<!-- /paths -->"
    readme.draw_pictures(page)
    link = re.search(r"\]\((.+)\)", readme.filled(page, tmp_path / "docs" / "experiments" / "page.md")).group(1)
    drawn = (tmp_path / "docs" / "experiments" / link).read_text()
    assert "no structure" in drawn
    assert "no overlay" in drawn


def test_the_readme_has_a_table() -> None:
    assert "<!-- table: results/demo/report.json -->\n| method" in README


@pytest.mark.parametrize("page", readme.PAGES, ids=lambda page: page.name)
def test_pictures_and_pages_that_are_linked_to_exist(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", page.read_text()):
        assert (page.parent / target).exists(), target


def test_names_its_two_commands_and_the_makefile_has_them() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for command in set(re.findall(r"make (\w+)", README)):
        assert re.search(rf"^{command}:", makefile, re.MULTILINE), command
