from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from dopant.errors import InputError, ResumeError
from dopant.recipes.places import Places, alone, begin, check_claim, is_finished

Snapshot = Callable[[Path], dict[str, bytes]]


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return Places.of(tmp_path / "m")


def make(folder: Path, *names: str) -> None:
    folder.mkdir()
    for name in names:
        (folder / name).write_text("something\n")


def test_where_everything_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Places.of("runs/m.1/").run == Path("runs/m.1.run")
    assert Places.of("m").report == Path("m.run/report.json")
    (tmp_path / "here" / "inner").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here" / "inner")
    assert Places.of(".").model == tmp_path / "here" / "inner"
    assert Places.of("..").run == tmp_path / "here.run"


def test_the_root_is_no_place() -> None:
    with pytest.raises(InputError, match="/ cannot become a model folder; choose another place"):
        Places.of("/")


@pytest.mark.parametrize(("force", "resume"), [(False, False), (True, False), (False, True)])
def test_an_empty_place_is_free(places: Places, force: bool, resume: bool) -> None:
    check_claim(places, force=force, resume=resume)


def test_force_and_resume_contradict(places: Places) -> None:
    with pytest.raises(InputError, match="force starts anew and resume goes on; give one of them"):
        check_claim(places, force=True, resume=True)


MODEL, RUN = ("config.json", "model.safetensors"), ("recipe.yaml", "log.jsonl")


@pytest.mark.parametrize(
    ("model", "run", "forced", "resumed"),
    [
        (MODEL, RUN, "", ""),
        (None, RUN, "", ""),
        (None, (), "", ""),  # killed before the recipe was written
        (None, (".recipe.yaml.17.part",), "", ""),
        (MODEL, None, "", "there is nothing to resume"),
        (MODEL, ("letter.txt",), "is not the folder of a run", "is not the folder of a run"),
        (("letter.txt",), RUN, "holds more than a model: letter.txt", "holds more than a model"),
        (("letter.txt",), None, "holds more than a model", "holds more than a model"),
    ],
)
def test_what_gives_way(
    model: tuple[str, ...] | None,
    run: tuple[str, ...] | None,
    forced: str,
    resumed: str,
    places: Places,
    snapshot: Snapshot,
    tmp_path: Path,
) -> None:
    for folder, names in ((places.model, model), (places.run, run)):
        if names is not None:
            make(folder, *names)
    before = snapshot(tmp_path)
    with pytest.raises(InputError, match="exists; go on with --resume, replace it with --force, or choose another"):
        check_claim(places, force=False, resume=False)
    for force, message in ((True, forced), (False, resumed)):
        if message:
            with pytest.raises(InputError, match=message):
                check_claim(places, force=force, resume=not force)
        else:
            check_claim(places, force=force, resume=not force)
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("place", ["model", "run"])
def test_files_and_dangling_links_are_in_the_way(place: str, places: Places) -> None:
    path: Path = getattr(places, place)
    path.write_text("mine")
    for force in (True, False):
        with pytest.raises(InputError, match=r"is a file|is not the folder of a run"):
            check_claim(places, force=force, resume=not force)
    path.unlink()
    path.symlink_to(path.parent / "nowhere")
    with pytest.raises(InputError, match="exists"):
        check_claim(places, force=False, resume=False)


def started(places: Places, fingerprint: str = "mine", *, force: bool = False) -> None:
    begin(places, recipe="method: lmf\n", plan="{}", fingerprint=fingerprint, force=force)


def test_a_run_begins_once(places: Places) -> None:
    started(places)
    assert {path.name for path in places.run.iterdir()} == {"recipe.yaml", "plan.json", "fingerprint"}
    places.log.write_text("a line\n")
    begin(places, recipe="never written", plan="", fingerprint="mine", force=False)
    assert places.recipe.read_text() == "method: lmf\n"
    started(places, "yours", force=True)
    assert not places.log.exists()


def test_a_begun_run_is_known_by_its_fingerprint(places: Places) -> None:
    assert is_finished(places, "mine") is False
    started(places)
    assert is_finished(places, "mine") is False
    with pytest.raises(ResumeError, match=r"m\.run belongs to another recipe, model or corpus .*recipe\.yaml is what"):
        is_finished(places, "yours")


def test_a_finished_run_has_a_model_and_a_report(places: Places) -> None:
    started(places)
    make(places.model, *MODEL)
    assert is_finished(places, "mine") is False
    places.report.write_text("{}")
    assert is_finished(places, "mine") is True
    places.fingerprint.unlink()
    with pytest.raises(ResumeError, match="belongs to another"):  # nobody knows whose it is
        is_finished(places, "mine")


def test_one_process_alone_works_in_a_run(places: Places) -> None:
    """A lock that is left behind by one that was killed is in nobody's way."""
    pytest.importorskip("fcntl")
    places.lock.write_text("")
    with alone(places):
        with pytest.raises(InputError, match=r"another dopant is at work in \S*m\.run; wait for it"), alone(places):
            raise AssertionError("two at once")
        assert places.lock.exists()
    assert not places.lock.exists()
    with alone(places):
        pass


def test_where_nothing_can_be_locked_the_run_goes_on(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "fcntl", None)
        with alone(places), alone(places):
            pass
    places.model.write_text("in the way")
    with alone(Places.of(places.model / "inner")):
        pass
