"""The documentation names what there is: links, files, modules, commands and rooms."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ff3r_model.core.config_file import load_config
from ff3r_model.pipeline import PipelineConfig
from tests.test_imports import MAY_IMPORT

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
ABOUT_NOW = [page for page in PAGES if page.name != "CHANGELOG.md"]
LINK = re.compile(r"\]\(([^)\s]+)\)")
MODULE = re.compile(r"python -m ((?:ff3r_model|ff3r_ros|benchmarks)[\w.]*)")
FILE = re.compile(r"(?<![\w./*<])((?:ff3r_model|ff3r_ros|tests|benchmarks|docs|config|docker|launch)/[\w./-]*\.\w+)")
CODE = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
ROW = re.compile(r"^\| `(\w+)` \| .* \| (.*) \|$", re.MULTILINE)


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", CODE.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken_links(page: Path) -> list[str]:
    """The relative links of a page that lead nowhere."""
    broken = []
    for link in LINK.findall(CODE.sub("", page.read_text())):
        path, _, anchor = link.partition("#")
        target = page if not path else page.parent / path
        if "://" not in link and not (target.exists() and (not anchor or anchor in anchors(target))):
            broken.append(link)
    return broken


def exists_as_module(module: str) -> bool:
    path = ROOT / module.replace(".", "/")
    return path.with_suffix(".py").is_file() or (path / "__main__.py").is_file()


def test_broken_links_are_found(tmp_path: Path) -> None:
    (tmp_path / "other.md").write_text("# What is bounded, and how\n")
    (tmp_path / "page.md").write_text(
        "[a](other.md) [b](other.md#what-is-bounded-and-how) [c](https://example.org) [d](#here)\n# Here\n"
        "[e](none.md) [f](other.md#none) [g](#none)\n```\n[h](code.md)\n```\n"
    )
    assert broken_links(tmp_path / "page.md") == ["none.md", "other.md#none", "#none"]


def test_there_are_pages() -> None:
    assert {"README.md", "CONTRIBUTING.md", "docs/README.md", "docs/architecture.md"} <= {name(page) for page in PAGES}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_resolve(page: Path) -> None:
    assert broken_links(page) == []


@pytest.mark.parametrize("page", ABOUT_NOW, ids=name)
def test_files_and_modules_exist(page: Path) -> None:
    text = page.read_text()
    missing = [file for file in FILE.findall(text) if not (ROOT / file).exists()]
    missing += [module for module in MODULE.findall(text) if not exists_as_module(module)]
    assert missing == []


def test_files_named_in_the_code_exist() -> None:
    sources = [
        path for folder in ("ff3r_model", "ff3r_ros", "config", "docker") for path in ROOT.glob(f"{folder}/**/*")
    ]
    readable = [path for path in sources if path.suffix in (".py", ".yaml") or path.name.startswith("Dockerfile")]
    named = {page for path in readable for page in re.findall(r"docs/[\w./-]+\.md", path.read_text())}
    assert named and not [page for page in named if not (ROOT / page).is_file()]


def test_every_page_is_in_the_index() -> None:
    index = ROOT / "docs/README.md"
    linked = {(index.parent / link).resolve() for link in LINK.findall(index.read_text())}
    assert [name(page) for page in PAGES if page != index and page not in linked] == []


def test_the_rooms_are_those_of_the_import_test() -> None:
    documented = dict(ROW.findall((ROOT / "docs/architecture.md").read_text()))
    above: list[str] = []
    for room, allowed in MAY_IMPORT.items():
        short = room.split(".")[1]
        cell = documented.pop(short)
        named = above if cell == "all above" else [] if cell == "–" else cell.split(", ")
        assert set(named) == allowed, room
        above.append(short)
    assert not documented


def examples(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("page", [page for page in PAGES if examples(page, "python")], ids=name)
def test_the_examples_of_code_import_what_there_is(page: Path) -> None:
    for example in examples(page, "python"):
        compile(example, name(page), "exec")
        exec("\n".join(line for line in example.splitlines() if line.startswith(("import ", "from "))), {})


def test_the_examples_of_configuration_load(tmp_path: Path) -> None:
    found = examples(ROOT / "docs/configuration.md", "yaml")
    assert found
    for example in found:
        (tmp_path / "example.yaml").write_text(example)
        assert load_config(PipelineConfig, tmp_path / "example.yaml") != PipelineConfig()
