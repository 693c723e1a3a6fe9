"""README's figures are those of the results, its tree is the real one, and what the pages say about files and commands is so."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

import phial
from benchmarks.readme_figures import BLOCK, README, RESULTS, render

ROOT = Path(__file__).resolve().parent.parent
DOCS = sorted(ROOT.glob("docs/*.md"))
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md", *DOCS]
TEXT = README.read_text(encoding="utf-8")
DEMO = json.loads((RESULTS / "demo.json").read_text(encoding="utf-8"))

LINK = re.compile(r"""\[[^\]]*\]\(([^)\s]+)\)|src="([^"]+)\"""")
# A measured quantity: a percentage, a count with a unit, a number with separators.
FIGURE = re.compile(r"\d[\d.,]*\s?(?:%|points?\b|seconds?\b|s\b|minutes?\b|hours?\b|[kMG]i?B\b|tokens\b|million\b|parameters\b)|\d+,\d{3}")
FORBIDDEN = {
    "a folder outside the repository": r"\.\./shared",
    "a path of some machine": r"(?<![\w.])/(?:work|tmp|home|root|mnt|opt)/\w",
    "an issue's number": r"(?i)\bissues?\s+#?\d|(?<![\w&(])#\d+\b",
    "an emoji": "[\U0001f300-\U0001faff☀-⛿✅✨]",
}


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


# -- README ----------------------------------------------------------------------------------------------------------------------------


def test_figures_are_those_of_the_results() -> None:
    assert render(TEXT, DEMO) == TEXT, "run: python -m benchmarks.readme_figures"


@pytest.mark.parametrize(
    "path", ["wall_s", "peak_rss_bytes", "multiple_choice.sft.accuracy", "quantization.kl", "paired.int4_minus_dpo.low"]
)
def test_another_result_is_another_readme(path: str) -> None:
    changed = json.loads(json.dumps(DEMO))
    *parents, last = path.split(".")
    place = changed
    for name in parents:
        place = place[name]
    place[last] = 1.3 * place[last] + 0.01
    assert render(TEXT, changed) != TEXT


def typed_figures(text: str) -> list[str]:
    """Figures that stand outside the written blocks and outside code."""
    prose = BLOCK.sub("", text)
    prose = re.sub(r"```.*?```|^    [^\n]*$|`[^`\n]*`", "", prose, flags=re.DOTALL | re.MULTILINE)
    return FIGURE.findall(prose)


def test_no_figure_is_typed_by_hand() -> None:
    assert typed_figures(TEXT) == []


@pytest.mark.parametrize(
    "line", ["It reaches 64.8 % there.", "In 10 minutes.", "At most 2.2 GiB.", "1,500 items.", "3 million parameters."]
)
def test_a_typed_figure_is_noticed(line: str) -> None:
    assert len(typed_figures(f"{TEXT}\n{line}\n")) == 1


def shown_tree(text: str) -> set[str]:
    """The paths of the annotated tree; folders end in a slash."""
    block = text.split("## The house")[1].split("```")[1]
    found: set[str] = set()
    folder = ""
    for line in block.strip().splitlines():
        name = line.split()[0]
        assert len(line.split()) > 1, f"{name}: no caption"
        if not line.startswith(" "):
            folder = name
        found.add(folder + name if line.startswith(" ") else name)
    return found


def real_tree() -> set[str]:
    """The tracked top-level entries, and the folders inside rooms, docs and benchmarks that hold files of ours."""
    if not shutil.which("git") or not (ROOT / ".git").exists():
        pytest.skip("the tree is compared in a git checkout only")
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    found: set[str] = set()
    for path in listed:
        first, *rest = path.split("/")
        found.add(first + "/" if rest else first)
        if len(rest) > 1 and first not in ("tests", ".ci"):
            found.add(f"{first}/{rest[0]}/")
    return {one for one in found if not (one.startswith(".") and one != ".ci/")} - {"README.md"}


def test_the_tree_is_the_real_one() -> None:
    assert sorted(shown_tree(TEXT)) == sorted(real_tree())


def test_a_tree_that_lacks_a_folder_is_noticed() -> None:
    assert shown_tree(re.sub(r"\neval/ .*", "", TEXT)) == shown_tree(TEXT) - {"eval/"}


def test_every_verb_is_there_with_its_line() -> None:
    assert re.findall(r"^\| `phial (\w+)` \| (.+) \|$", TEXT, flags=re.MULTILINE) == [
        (verb, line) for verb, (_, line) in phial.VERBS.items()
    ]


# -- every page ------------------------------------------------------------------------------------------------------------------------


def broken_links(page: Path, text: str) -> list[str]:
    """Relative links of a page that lead nowhere."""
    targets = [(first or second).split("#")[0] for first, second in LINK.findall(text)]
    return [one for one in targets if one and "://" not in one and not (page.parent / one).exists()]


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_links_lead_somewhere(page: Path) -> None:
    assert broken_links(page, page.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("link", ["[x](docs/nowhere.md)", "![x](docs/images/none.png)", '<img src="none.png">', "[x](nothing.md#part)"])
def test_a_broken_link_is_noticed(link: str) -> None:
    assert len(broken_links(README, f"{TEXT}\n{link}")) == 1


def unwanted(text: str) -> list[str]:
    """What has no place on a page."""
    return [f"{what}: {found.group()}" for what, pattern in FORBIDDEN.items() for found in re.finditer(pattern, text)]


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_pages_name_nothing_of_one_machine(page: Path) -> None:
    assert unwanted(page.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("line", ["see ../shared/data", "in /work/main", "at /tmp/x", "(issue 12)", "as #34 says", "done ✅"])
def test_an_unwanted_word_is_noticed(line: str) -> None:
    assert len(unwanted(line)) == 1


def test_the_list_of_pages_is_complete() -> None:
    listed = re.findall(r"^\| \[([\w.]+)\]", (ROOT / "docs/README.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert sorted(listed) == sorted(page.name for page in DOCS if page.name != "README.md")


# -- commands on the pages -------------------------------------------------------------------------------------------------------------


def known_options() -> dict[str, set[str]]:
    """Verb -> its options, from docs/cli.md, which a test compares with the verbs themselves."""
    page = (ROOT / "docs/cli.md").read_text(encoding="utf-8")
    sections = re.findall(r"^## phial ([\w ]+)\n\n```\n(.*?)```", page, flags=re.DOTALL | re.MULTILINE)
    return {verb: set(re.findall(r"(?<![\w-])--[a-z][\w-]*", text)) for verb, text in sections}


def wrong_commands(text: str) -> list[str]:
    """`phial ...` lines of a page that name an unknown verb or option."""
    options = known_options()
    found = []
    blocks = re.findall(r"```\n(.*?)```|((?:^    .*\n)+)", text + "\n", flags=re.DOTALL | re.MULTILINE)
    spans = re.findall(r"`(phial [^`\n]+)`", text)
    lines = [line for block in blocks for line in "".join(block).replace("\\\n", " ").splitlines()]
    for line in [*lines, *spans]:
        called = re.match(r"\s*(?:\.venv/bin/)?phial (.+?)(?:\s+#.*)?$", line)
        if not called:
            continue
        words = called.group(1).split()
        verb = next((" ".join(words[:n]) for n in (3, 2, 1) if " ".join(words[:n]) in options), None)
        if verb is None:
            if words[0] not in phial.VERBS and not words[0].startswith(("-", ".", "V")):
                found.append(f"{line.strip()}: no such verb")
            continue
        found += [f"{line.strip()}: no {word}" for word in words if word.startswith("--") and word.split("=")[0] not in options[verb]]
    return found


@pytest.mark.parametrize("page", [one for one in PAGES if one.name != "cli.md"], ids=relative)
def test_commands_on_the_pages_exist(page: Path) -> None:
    assert wrong_commands(page.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "line", ["    phial demo --fast\n", "```\nphial data biuld demo --out x\nphial nosuch\n```", "`phial eval x --dta y`"]
)
def test_a_wrong_command_is_noticed(line: str) -> None:
    assert len(wrong_commands(line)) >= 1
