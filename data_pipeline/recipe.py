"""Recipes: TOML tables plus `--set table.key=value`, checked by frozen pydantic models.

A recipe is one TOML file whose top-level tables are the sections below. Each room declares the model of its own sections, and a verb reads
the sections it needs, so one file can drive one verb or the whole chain.
"""

import copy
import tomllib
from pathlib import Path
from typing import Any, TypeVar

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from data_pipeline.errors import InputError
from data_pipeline.storage import atomic_write

# Every section and what it is for; a table of another name in a recipe is refused.
SECTIONS = {
    "run": "the run folder and the seed",
    "collect": "where raw pages come from",
    "web": "which pages are kept, and why",
    "report": "what the report of the web data shows, and which whole crawl it forecasts",
    "synthetic": "generated lessons, exercises and preferences",
    "tokenizer": "the byte-level BPE",
    "tokens": "token shards",
    "model": "the decoder's sizes",
    "pretrain": "pretraining: phases, steps, optimizer, checkpoints",
    "layout": "how the decoder lies over ranks: ZeRO stage, tensor and context ranks",
    "sft": "supervised fine-tuning",
    "dpo": "direct preference optimisation",
    "eval": "benchmarks and protocols",
    "export": "the 4-bit package",
}

RECIPES = Path(__file__).resolve().parent.parent / "recipes"


class Section(BaseModel):
    """The base of every section: frozen, and strict about names. Give each field a `Field(description=..., ge=...)`."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class RunRecipe(Section):
    """[run]"""

    folder: str = "runs/default"
    seed: int = Field(default=0, ge=0, lt=2**32)  # what numpy and torch both take


AnySection = TypeVar("AnySection", bound=Section)


class Recipe:
    """A recipe as read: `section()` validates a table, `save()` writes what was resolved."""

    def __init__(self, tables: dict[str, dict[str, Any]], where: str) -> None:
        self.tables = tables
        self.where = where

    @classmethod
    def load(cls, name: str | Path, overrides: list[str] | None = None) -> "Recipe":
        """A TOML file, or the name of one in `recipes/` (`demo` for `recipes/demo.toml`), with `section.key=value` overrides."""
        path = Path(name)
        if not path.exists() and path.suffix == "" and (RECIPES / f"{name}.toml").exists():
            path = RECIPES / f"{name}.toml"
        try:
            tables = tomllib.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            known = ", ".join(sorted(one.stem for one in RECIPES.glob("*.toml")))
            raise InputError(f"{name}: no such recipe; give a TOML file or one of: {known}") from error
        except IsADirectoryError as error:
            raise InputError(f"{name}: a folder; a recipe is a TOML file") from error
        except (ValueError, RecursionError) as error:  # no TOML, no Unicode, a number of thousands of digits, thousands of brackets
            raise InputError(f"{path}: not valid TOML: {error}") from error
        recipe = cls({}, str(path))
        for section, table in tables.items():
            recipe.check_section(section, str(path))
            if not isinstance(table, dict):
                raise InputError(f"{path}: {section} must be a table, like [{section}]; got {section} = {table!r}")
            recipe.tables[section] = table
        for override in overrides or []:
            recipe.override(override)
        return recipe

    @staticmethod
    def check_section(section: str, where: str) -> None:
        if section not in SECTIONS:
            raise InputError(f"{where}: no section [{section}]; there is {', '.join(SECTIONS)}")

    def override(self, text: str) -> None:
        """Applies one `section.key=value`; the value is read as TOML, and as a plain string where that fails."""
        path, equals, value = text.partition("=")
        keys = [key.strip() for key in path.split(".")]
        if not equals or len(keys) < 2 or not all(keys):
            raise InputError(f"--set {text}: section.key=value is needed, for example --set pretrain.context=128")
        self.check_section(keys[0], f"--set {text}")
        table = self.tables.setdefault(keys[0], {})
        for key in keys[1:-1]:
            table = table.setdefault(key, {})
            if not isinstance(table, dict):
                raise InputError(f"--set {text}: {key} is a value, not a table")
        try:
            table[keys[-1]] = tomllib.loads(f"value = {value.strip()}")["value"]
        except tomllib.TOMLDecodeError:
            table[keys[-1]] = value.strip()
        except (ValueError, RecursionError) as error:
            raise InputError(f"--set {text:.60}: the value cannot be read: {error}") from error

    def section(self, name: str, model: type[AnySection]) -> AnySection:
        """The section as its model, defaults filled in; an unknown key or a value out of range is an error of one line."""
        self.check_section(name, self.where)
        try:
            value = model(**copy.deepcopy(self.tables.get(name, {})))
        except ValidationError as error:
            raise InputError(f"{self.where}: {describe(name, model, error.errors()[0])}") from error
        except TypeError as error:  # a key that is no identifier
            raise InputError(f"{self.where}: [{name}] {error}") from error
        self.tables[name] = value.model_dump(mode="json", exclude_none=True)
        return value

    def save(self, path: str | Path) -> None:
        """The recipe with every section that was read resolved to its last default."""
        with atomic_write(path) as stream:
            tomli_w.dump({name: self.tables[name] for name in SECTIONS if name in self.tables}, stream)


# What TOML calls the kinds of values that pydantic names after Python's classes.
ALLOWED = {
    "tuple_type": 'input should be a list, for example ["one", "two"]',
    "model_type": "input should be a table of settings",
    "dict_type": "input should be a table of settings",
}


def describe(section: str, model: type[Section], problem: ErrorDetails) -> str:
    """One line for one pydantic error: the setting, what is allowed, what came."""
    *parents, last = problem["loc"] or ("",)
    place = ".".join([section, *map(str, parents)])
    if problem["type"] == "extra_forbidden":
        return f"[{place}] has no setting {str(last)!r}; there is {', '.join(known_settings(model, parents))}"
    given = problem["input"]
    if problem["type"] == "value_error" and isinstance(given, dict):  # of settings that do not fit each other: its text names them
        return f"[{'.'.join([section, *map(str, problem['loc'])])}] {problem['msg'].removeprefix('Value error, ')}"
    if problem["type"] == "missing":
        return f"[{place}] {last} is missing; it must be set"
    allowed = ALLOWED.get(problem["type"]) or problem["msg"].removeprefix("Value error, ")
    return f"[{place}] {last} = {given!r}: {allowed[0].lower()}{allowed[1:]}"


def known_settings(model: type[BaseModel], parents: list[int | str]) -> list[str]:
    """The field names of the model that a location inside `model` leads to."""
    for parent in parents:
        field = model.model_fields.get(str(parent))
        found = [one for one in inner_models(field.annotation)] if field else []
        if found:
            model = found[0]
    return list(model.model_fields)


def inner_models(annotation: Any) -> list[type[BaseModel]]:
    """The pydantic models inside a type such as `list[Phase]` or `Phase | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for inner in getattr(annotation, "__args__", ()) for model in inner_models(inner)]
