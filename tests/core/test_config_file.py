"""Configuration files: what they print reads back, every key can be set, and what is wrong is named."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml

from ff3r_model.core.config_file import NOT_IN_FILES, ConfigError, load_config
from ff3r_model.core.config_text import config_text, field_docs
from ff3r_model.core.errors import UserError
from ff3r_model.core.ranges import AT_LEAST_ONE, POSITIVE, SHARE, Range, check_range


@dataclass(frozen=True)
class Inner:
    """A section."""

    share: float = 0.5
    """From nothing to all."""
    count: int = 3

    def __post_init__(self) -> None:
        check_range(self, SHARE, "share")
        check_range(self, AT_LEAST_ONE, "count")


@dataclass(frozen=True)
class Outer:
    """Everything that a field can be."""

    mode: Literal["auto", "flow", "off"] = "auto"
    """How."""
    size: tuple[int, int] = (640, 480)
    words: tuple[str, ...] = ("wall", "no")
    folder: Path | None = None
    loud: bool = False
    height: float | None = None
    inner: Inner = field(default_factory=Inner)
    extra: Inner | None = None
    """Off by default."""
    hidden: int = field(default=7, metadata=NOT_IN_FILES)


def loaded(text: str, folder: Path, **layers: Any) -> Outer:
    path = folder / "some.yaml"
    path.write_text(text)
    return load_config(Outer, path, **layers)


SET = Outer(
    mode="off",
    size=(3, 4),
    words=("a: b", "# c", "é", "true", "1"),
    folder=Path("/tmp/x"),
    loud=True,
    height=1e-7,
    inner=Inner(0.25, 9),
    extra=Inner(1.0, 1),
)


@pytest.mark.parametrize("config", [Outer(), SET])
def test_what_is_printed_reads_back(config: Outer, tmp_path: Path) -> None:
    assert loaded(config_text(config), tmp_path) == config


def test_every_key_is_explained_by_its_docstring() -> None:
    assert field_docs(Outer) == {"mode": "How.", "extra": "Off by default."}
    lines = config_text(Outer()).splitlines()
    assert lines[lines.index("mode: auto") - 1] == "# How. One of auto, flow, off."
    assert lines[lines.index("inner:") - 1] == "# A section."
    assert lines[lines.index("  share: 0.5") - 1] == "  # From nothing to all."
    start = lines.index("extra: null")
    assert lines[start - 1] == "# A section. Off by default." and lines[start + 1] == "# extra:"
    off = [line.removeprefix("# ") for line in lines[start + 1 :]]
    assert yaml.safe_load("\n".join(off)) == {"extra": {"share": 0.5, "count": 3}}, "as it is where it is taken in"
    assert "hidden" not in config_text(Outer())


def test_a_file_states_what_differs(tmp_path: Path) -> None:
    assert loaded("", tmp_path) == Outer() == loaded("inner:\n", tmp_path)
    assert loaded("inner: {share: 1}\nmode: off", tmp_path) == Outer(mode="off", inner=Inner(share=1.0))
    assert loaded("height: 1e-3\nextra: {}", tmp_path) == Outer(height=0.001, extra=Inner())
    assert loaded("folder: ~/plans", tmp_path).folder == Path.home() / "plans"


def test_layers_go_above_and_below_the_file(tmp_path: Path) -> None:
    over, under = {"inner.count": 5, "mode": None}, {"inner.count": 4, "inner.share": 0.1, "height": 2.0, "loud": True}
    made = loaded("inner: {count: 2, share: 0.2}\nmode: flow\nloud: false", tmp_path, over=over, under=under)
    assert made == Outer(mode="flow", height=2.0, inner=Inner(0.2, 5))
    assert load_config(Outer, None, {"extra.count": 2}) == Outer(extra=Inner(count=2))


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("mod: off", "some.yaml has no mod; did you mean mode?"),
        ("xyzzy: 1", "some.yaml has no xyzzy; it has mode, size, words, folder, loud, height, inner, extra"),
        ("hidden: 1", "some.yaml has no hidden; it has"),
        ("inner: {shares: 1}", "some.yaml: inner has no shares; did you mean share?"),
        ("extra: {1: 1}", "some.yaml: extra has no 1; it has share, count"),
        ("mode: of", "some.yaml: mode = 'of': allowed are auto, flow, off"),
        ("size: [1, 2, 3]", "some.yaml: size = [1, 2, 3]: expected 2 values"),
        ("size: 640x480", "some.yaml: size = '640x480': expected a list"),
        ("size: [1, 2.5]", "some.yaml: size = 2.5: expected a whole number"),
        ("words: [1]", "some.yaml: words = 1: expected a text"),
        ("folder: 3", "some.yaml: folder = 3: expected a path"),
        ("loud: 1", "some.yaml: loud = 1: expected true or false"),
        ("loud: off", "some.yaml: loud = 'off': expected true or false"),
        ("inner: {count: true}", "some.yaml: inner.count = True: expected a whole number"),
        ("inner: {count: 2.0}", "some.yaml: inner.count = 2.0: expected a whole number"),
        ("inner: {share: much}", "some.yaml: inner.share = 'much': expected a number"),
        ("inner: {share: null}", "some.yaml: inner.share = None: expected a number"),
        ("inner: {share: 1.5}", "some.yaml: inner.share must be 0 to 1, not 1.5"),
        ("inner: {share: .nan}", "some.yaml: inner.share must be 0 to 1, not nan"),
        ("extra: {count: 0}", "some.yaml: extra.count must be at least 1, not 0"),
        ("inner: 3", "some.yaml: inner = 3: expected a section with keys share, count"),
        ("[1, 2]", "some.yaml should hold sections and keys"),
        ("mode: [", "some.yaml cannot be read as YAML"),
        ("mode: auto\nmode: off", "the key mode stands twice"),
        ("loud: !!python/object:os.system {}", "some.yaml cannot be read as YAML"),
    ],
)
def test_what_is_wrong_is_named_in_one_line(text: str, complaint: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        loaded(text, tmp_path)
    assert complaint in str(caught.value) and "\n" not in str(caught.value)
    assert isinstance(caught.value, UserError)


def test_a_missing_file_and_one_that_is_no_text(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml cannot be read"):
        load_config(Outer, tmp_path / "none.yaml")
    (tmp_path / "image.png").write_bytes(bytes(range(256)))
    with pytest.raises(ConfigError, match=r"image\.png cannot be read"):
        load_config(Outer, tmp_path / "image.png")


def test_a_value_that_no_file_states_is_not_put_down_to_the_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        loaded("inner: {share: 0.1}", tmp_path, over={"inner.count": 0})
    assert str(caught.value) == "count must be at least 1, not 0"
    with pytest.raises(ConfigError) as caught:
        loaded("inner: {count: 3}", tmp_path, over={"inner.count": 0})
    assert str(caught.value) == "count must be at least 1, not 0"
    with pytest.raises(ConfigError, match=r"some\.yaml: inner\.count must be"):
        loaded("inner: {count: 0}", tmp_path, over={"inner.share": 0.5}, under={"inner.count": 1})
    assert loaded("", tmp_path, over={"extra.count": None}) == Outer(), "None takes no section in"


def test_ranges_in_words() -> None:
    assert [str(found) for found in (POSITIVE, SHARE, AT_LEAST_ONE, Range(0, 1, above=True))] == [
        "positive", "0 to 1", "at least 1", "above 0 to 1",
    ]  # fmt: skip
    assert 0 not in POSITIVE and 0 in SHARE and 1 in SHARE and 1.1 not in SHARE and float("nan") not in POSITIVE


def test_files_that_break_parsers_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    aliases = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 60))
    for text in ("[" * 10_000, aliases + "inner: *a59", "inner: {count: " + "9" * 5000 + "}", "inner: {share: 1e999}",
                 "height: " + "9" * 400, "#" * 2**20):  # fmt: skip
        path.write_text(text)
        with pytest.raises(ConfigError, match=r"bad\.yaml") as caught:
            load_config(Outer, path)
        assert len(str(caught.value)) < 1000
