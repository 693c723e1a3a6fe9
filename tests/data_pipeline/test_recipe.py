"""Recipes: what is refused, in one line that names the place, and what overrides become."""

import tomllib
from pathlib import Path

import pytest
from pydantic import Field

from data_pipeline.errors import InputError
from data_pipeline.recipe import Recipe, RunRecipe, Section
from data_pipeline.tokens.recipe import TokenizerRecipe, TokensRecipe
from training.recipe import PretrainRecipe


class Inner(Section):
    name: str
    share: float = Field(0.5, ge=0, le=1)


class Outer(Section):
    steps: int = Field(10, ge=1)
    flag: bool = False
    parts: tuple[Inner, ...] = ()
    limit: int | None = None


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "r.toml"
    path.write_text(text, encoding="utf-8")
    return path


def line_of(error: pytest.ExceptionInfo[InputError]) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[nosuch]\na = 1", "no section [nosuch]; there is run, collect"),
        ("run = 3", "run must be a table"),
        ("[run\n", "not valid TOML"),
    ],
)
def test_a_broken_file(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(InputError) as error:
        Recipe.load(write(tmp_path, text))
    assert said in line_of(error)


def test_missing_and_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such recipe"):
        Recipe.load(tmp_path / "none.toml")
    with pytest.raises(InputError, match="a folder"):
        Recipe.load(tmp_path)
    binary = tmp_path / "b.toml"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="not valid TOML"):
        Recipe.load(binary)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[pretrain]\nstep = 1", "[pretrain] has no setting 'step'; there is steps, flag, parts, limit"),
        ("[pretrain]\nsteps = 0", "steps = 0: input should be greater than or equal to 1"),
        ("[pretrain]\nsteps = 'many'", "steps = 'many'"),
        ("[pretrain]\nparts = 'a'", "parts = 'a': input should be a list"),
        ("[[pretrain]]\nsteps = 1", "pretrain must be a table"),
        ("[pretrain]\nparts = ['a']", "0 = 'a': input should be a table of settings"),
        ("[[pretrain.parts]]\nname = 'a'\nshare = 2.0", "[pretrain.parts.0] share = 2.0"),
        ("[[pretrain.parts]]\nname = 'a'\nshares = 1", "[pretrain.parts.0] has no setting 'shares'; there is name, share"),
        ("[[pretrain.parts]]\nshare = 1", "name is missing"),
    ],
)
def test_a_bad_setting(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(InputError) as error:
        Recipe.load(write(tmp_path, text)).section("pretrain", Outer)
    assert said in line_of(error)


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ("pretrain.steps=100", "steps", 100),
        ("pretrain.flag=true", "flag", True),
        ("pretrain.parts=[{name='a'}]", "parts", (Inner(name="a"),)),
        (" pretrain . steps = 7 ", "steps", 7),
    ],
)
def test_overrides_are_read_as_toml(tmp_path: Path, override: str, key: str, value: object) -> None:
    recipe = Recipe.load(write(tmp_path, "[pretrain]\nsteps = 3\n"), [override])
    assert getattr(recipe.section("pretrain", Outer), key) == value


@pytest.mark.parametrize("bomb", ["[" * 200_000, "9" * 5000])
def test_toml_that_pythons_reader_gives_up_on_is_one_line(tmp_path: Path, bomb: str) -> None:
    with pytest.raises(InputError, match="not valid TOML") as error:
        Recipe.load(write(tmp_path, f"[run]\nseed = {bomb}\n"))
    assert len(line_of(error)) < 400
    with pytest.raises(InputError, match=r"--set run\.seed=.*: the value cannot be read") as error:
        Recipe.load(write(tmp_path, ""), [f"run.seed={bomb}"])
    assert len(line_of(error)) < 400


def test_an_override_that_is_no_toml_is_a_string(tmp_path: Path) -> None:
    recipe = Recipe.load(write(tmp_path, ""), ["run.folder=/tmp/a b"])
    assert recipe.section("run", RunRecipe).folder == "/tmp/a b"


@pytest.mark.parametrize("override", ["pretrain.steps", "steps=3", "=3", "pretrain.=3", ".steps=3", ""])
def test_a_malformed_override(tmp_path: Path, override: str) -> None:
    with pytest.raises(InputError, match=r"section\.key=value is needed"):
        Recipe.load(write(tmp_path, ""), [override])


def test_the_example_of_an_override_is_one(tmp_path: Path) -> None:
    with pytest.raises(InputError) as error:
        Recipe.load(write(tmp_path, ""), ["pretrain"])
    recipe = Recipe.load(write(tmp_path, ""), [str(error.value).rpartition("--set ")[2]])
    recipe.section("pretrain", PretrainRecipe)


def test_an_override_through_a_value_or_of_an_unknown_section(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is a value, not a table"):
        Recipe.load(write(tmp_path, "[pretrain]\nsteps = 3\n"), ["pretrain.steps.a=1"])
    with pytest.raises(InputError, match=r"no section \[nosuch\]"):
        Recipe.load(write(tmp_path, ""), ["nosuch.a=1"])


def test_what_is_saved_is_resolved_and_reads_back(tmp_path: Path) -> None:
    recipe = Recipe.load(write(tmp_path, "[sft]\nrest = 1\n"), ["pretrain.flag=true"])
    read = recipe.section("pretrain", Outer)
    recipe.save(tmp_path / "run/recipe.toml")
    saved = tomllib.loads((tmp_path / "run/recipe.toml").read_text(encoding="utf-8"))
    assert saved == {"pretrain": {"steps": 10, "flag": True, "parts": []}, "sft": {"rest": 1}}
    assert Recipe.load(tmp_path / "run/recipe.toml").section("pretrain", Outer) == read


def test_sections_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Outer().steps = 3  # type: ignore[misc]


def test_the_token_sections(tmp_path: Path) -> None:
    recipe = Recipe.load(write(tmp_path, "[tokenizer]\nvocab_size = 1000\n[tokens]\nsources = ['books']\n"))
    with pytest.raises(InputError, match="multiple of 64"):
        recipe.section("tokenizer", TokenizerRecipe)
    with pytest.raises(InputError, match="'web', 'web_clean' or 'synthetic'"):
        recipe.section("tokens", TokensRecipe)
