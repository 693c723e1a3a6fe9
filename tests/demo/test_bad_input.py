"""Bad input to the chain and its verbs: one line, exit code 2, no traceback, and what was complete before stays."""

import re
import resource
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import phial
from data_pipeline.storage import sha256_of
from data_pipeline.web.warc_writer import WarcWriter
from tests import tiny_chain

Refusal = Callable[..., str]


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Refusal:
    """Runs a verb that must be refused and returns its one line."""

    def run(*arguments: str | Path) -> str:
        capsys.readouterr()
        assert phial.run([str(one) for one in arguments]) == 2
        shown = capsys.readouterr().err
        lines = [line for line in shown.splitlines() if line.startswith("phial: ")]
        assert len(lines) == 1, shown
        assert "Traceback" not in shown
        return lines[0]

    return run


def contents(folder: Path) -> dict[str, str]:
    """Every file of a run with its SHA-256; the recipe and the plan say what was asked for last, not what was made."""
    names = [path for path in folder.rglob("*") if path.is_file() and path.name != "recipe.toml" and "journal" not in path.parts]
    return {str(path.relative_to(folder)): sha256_of(path) for path in names}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"this is a letter, not a crawl\n" * 200, "not a WARC file"),
        (b"\x1f\x8b\x08\x00broken", "not a WARC file"),
        (b"", "an empty file"),
        (None, "no such file"),
    ],
)
def test_a_file_that_is_no_crawl(content: bytes | None, said: str, recipe: Path, run: Path, tmp_path: Path, refused: Refusal) -> None:
    crawl = tmp_path / "given.warc.gz"
    if content is not None:
        crawl.write_bytes(content)
    before = contents(run)
    line = refused("demo", "--recipe", recipe, "--out", run, "--warc", crawl)
    assert str(crawl) in line
    assert said in line
    assert contents(run) == before


def test_an_empty_crawl(recipe: Path, run: Path, tmp_path: Path, refused: Refusal) -> None:
    with open(tmp_path / "empty.warc.gz", "wb") as stream:
        WarcWriter(stream, "nothing in it")
    before = contents(run)
    assert "an empty crawl" in refused("demo", "--recipe", recipe, "--out", run, "--warc", tmp_path / "empty.warc.gz")
    assert contents(run) == before


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--set", "pretrain.speed=3"], "[pretrain] has no setting 'speed'; there is "),
        (["--set", "kitchen.a=1"], "no section [kitchen]; there is run, "),
        (["--set", "pretrain.learning_rate=-1"], "[pretrain] learning_rate = -1: "),
        (["--set", "dpo.steps=many"], "[dpo] steps = 'many': "),
        (["--set", "synthetic.families=['cooking']"], "no family called 'cooking'; there is "),
        (["--ranks", "0"], "--ranks"),
        (["--benchmarks", "/no/such/folder"], "no folder mmlu"),
    ],
)
def test_settings_that_cannot_be(more: list[str], said: str, recipe: Path, run: Path, refused: Refusal) -> None:
    before = contents(run)
    assert said in refused("demo", "--recipe", recipe, "--out", run, *more)
    assert contents(run) == before


def test_a_recipe_that_is_not_there(tmp_path: Path, refused: Refusal) -> None:
    assert "no such recipe" in refused("demo", "--recipe", tmp_path / "none.toml", "--out", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_benchmark_files_that_are_none_are_named_before_the_first_stage(recipe: Path, tmp_path: Path, refused: Refusal) -> None:
    for split in ("dev", "test"):
        (tmp_path / "data/mmlu" / split).mkdir(parents=True)
        (tmp_path / "data/mmlu" / split / f"law_{split}.csv").write_text("What?,1,2,3\n")
    line = refused("demo", "--recipe", recipe, "--out", tmp_path / "run", "--benchmarks", tmp_path / "data")
    assert "law_dev.csv, item 1: found 4 fields" in line
    assert not (tmp_path / "run").exists()


def test_an_output_folder_that_is_none(recipe: Path, tmp_path: Path, refused: Refusal) -> None:
    (tmp_path / "file").write_text("mine")
    assert "a file stands there" in refused("demo", "--recipe", recipe, "--out", tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="/proc is the folder that nobody can write")
def test_an_output_folder_that_cannot_be_written(recipe: Path, refused: Refusal) -> None:
    assert "cannot be written" in refused("demo", "--recipe", recipe, "--out", "/proc/phial")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 700 kB: room for pages and tokens, not for checkpoints."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=700k", "tmpfs", str(disk)], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("mounting a small disk needs root on Linux; the next test has the kernel refuse bytes without it")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.skipif(shutil.which("mount") is None, reason="mounts a small disk")
def test_a_disk_that_is_full(recipe: Path, small_disk: Path) -> None:
    run = small_disk / "run"
    for _ in range(2):  # and again: what was complete stays and is kept
        done = tiny_chain.phial("demo", "--recipe", recipe, "--out", run)
        assert done.returncode == 2, done.stderr[-2000:]
        where = f"phial: {run}/pretrain/checkpoints: a checkpoint could not be written"
        assert done.stderr.splitlines()[-1] == f"{where}: No space left on device; what was complete before is kept"
        assert "Traceback" not in done.stderr
    assert re.search("^tokenize +kept ", done.stdout, re.MULTILINE)


def test_files_that_may_not_grow(recipe: Path, tmp_path: Path, refused: Refusal) -> None:
    """The kernel itself refuses the bytes, in the middle of a write."""
    run = tmp_path / "run"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (8192, hard))
        line = refused("demo", "--recipe", recipe, "--out", run)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert "File too large" in line
    assert not (run / "results.json").exists()
    done = tiny_chain.phial("data", "build", recipe, "--out", run)
    assert done.returncode == 0, done.stderr


def test_a_truncated_crawl_gives_its_good_pages_and_one_line(tmp_path: Path) -> None:
    whole = tiny_chain.write_crawl(tmp_path / "whole.warc.gz")
    cut = tmp_path / "cut.warc.gz"
    cut.write_bytes(whole.read_bytes()[:-2500])
    recipe = tiny_chain.write_recipe(tmp_path / "recipe", cut)
    # Stopped by a setting that only a later stage can refuse, so that the filter's line is seen and no model is trained.
    done = tiny_chain.phial("demo", "--recipe", recipe, "--out", tmp_path / "run", "--set", "synthetic.families=['cooking']")
    said = [line for line in done.stdout.splitlines() if str(cut) in line]
    assert len(said) == 1, done.stdout
    assert "truncated" in said[0]
    assert " pages kept" in done.stdout


@pytest.mark.parametrize("verb", ["chat", "serve", "bench"])
def test_a_package_that_is_damaged_or_missing(verb: str, run: Path, refused: Refusal) -> None:
    more = ["--no-browser"] if verb == "serve" else []
    assert "none" in refused(verb, run / "none", *more)
    damage(run / "package/model.onnx.data")
    assert "model.onnx.data" in refused(verb, run / "package", *more)


def test_a_damaged_package_is_not_scored(run: Path, refused: Refusal) -> None:
    damage(run / "package/model.onnx.data")
    data = ["--data", run / "synthetic/held_out", "--out", run / "scores"]
    assert "model.onnx.data" in refused("eval", run / "package", *data)
    assert str(run / "none") in refused("eval", run / "none", *data)


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["data", "build"], "phial data collect"),
        (["tokenizer", "train"], "phial data build"),
        (["data", "tokenize"], "phial tokenizer train"),
        (["pretrain"], "tokens"),
        (["sft"], "phial pretrain"),
        (["dpo"], "phial sft"),
    ],
)
def test_a_verb_without_the_stage_before_it(words: list[str], said: str, recipe: Path, tmp_path: Path, refused: Refusal) -> None:
    assert said in refused(*words, recipe, "--out", tmp_path / "run")
