"""`ff3r weights`: the table of weights that have names, and the command that fetches, converts and installs one."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import OmitArgPrefixes, OmitSubcommandPrefixes, Positional, UseAppendAction, arg, subcommand

from ff3r_model.cli.steps_shown import steps_shown
from ff3r_model.cli.terminal import tell

if TYPE_CHECKING:
    from ff3r_model.network.named_weights.recipes import Recipe

VIEWS = (8, 16, 64)
"""Windows for which the table gives memory."""
COLUMNS = (
    "name",
    "what for",
    "file",
    "GPU memory at 8 / 16 / 64 views",
    "commercial use",
    "licence",
    "from",
    "installed",
)
NOTES = """\
file: of the converted checkpoint. GPU memory: computed for windows of 448x336, bf16, cache of frames full, with half a
gigabyte for CUDA, without the map; measured on no GPU yet. `ff3r weights get NAME` fetches one of them;
docs/public-weights.md says which for which robot."""


@dataclass(frozen=True)
class List:
    """Print which weights have names: what for, how large, under which licence, and whether they are installed."""

    json: bool = False
    """Print JSON, sizes in bytes."""

    def __call__(self) -> str:
        from ff3r_model.network.named_weights.places import weights_folder

        rows = _rows()
        if self.json:
            return json.dumps({"folder": str(weights_folder()), "weights": rows}, indent=1)
        return f"{_table(rows)}\n\n{NOTES}\ninstalled in {weights_folder()}"


@dataclass(frozen=True)
class Get:
    """Fetch weights from the Hugging Face hub, convert them and install them under their name.

    An interrupted download goes on where it was. Respects HF_HOME, HF_ENDPOINT, HF_HUB_OFFLINE and HF_TOKEN; installs
    in $FF3R_WEIGHTS, else in ff3r/weights of the user's data folder.
    """

    name: Positional[str]
    """One of `ff3r weights list`."""
    accept_licence: Annotated[UseAppendAction[tuple[str, ...]], arg(metavar="LICENCE")] = ()
    """A licence that you have read and accept, where weights need that; once for each."""
    file: Annotated[UseAppendAction[tuple[str, ...]], arg(metavar="KEY=PATH")] = ()
    """A public file that is here already, such as lseg=demo_e200.ckpt; once for each."""
    channels: int = 64
    """Width of the compact semantic features; the text's own width loses nothing and makes maps larger."""
    precision: Literal["float32", "float16", "bfloat16"] = "float32"
    """Of the stored weights; the narrower ones halve the file."""
    again: bool = False
    """Fetch and convert anew what is installed already; the old file stays until the new one is whole."""

    def __call__(self) -> str:
        import torch

        from ff3r_model.network.named_weights import install
        from ff3r_model.network.public_weights import convert

        recipe, given = install.recipe_named(self.name), self._given()
        for licence in install.licences_to_accept(recipe, ()):
            tell(f"{licence.title}: {licence.sentence}\n  {licence.url}")
        conversion = install.Conversion(
            self.channels, None if self.precision == "float32" else getattr(torch, self.precision)
        )
        with steps_shown("ff3r_model.network.named_weights"), steps_shown(convert.__name__):
            path, made = install.install(recipe, self.accept_licence, given, conversion, again=self.again)
        told = f"{path}: {path.stat().st_size / 1e6:,.1f} MB, {_licences(recipe)}"
        if not made:
            return f"{told}\ninstalled already; --again fetches and converts anew"
        return f"{told}\nuse it by `--weights {recipe.name}`, or `weights:={recipe.name}` for the node"

    def _given(self) -> dict[str, Path]:
        from ff3r_model.network.named_weights.places import WeightsError

        given = {}
        for text in self.file:
            key, equals, path = text.partition("=")
            if not equals or not path:
                raise WeightsError(f"--file {text!r}: give KEY=PATH, as in lseg=demo_e200.ckpt")
            given[key] = Path(path).expanduser()
        return given


@dataclass(frozen=True)
class Weights:
    """List weights that have names, or fetch one: geometry and words for the real world, by one command."""

    what: OmitArgPrefixes[
        OmitSubcommandPrefixes[
            Annotated[List, subcommand("list", prefix_name=False)]
            | Annotated[Get, subcommand("get", prefix_name=False)]
        ]
    ]

    def __call__(self) -> str:
        return self.what()


def _rows() -> list[dict[str, Any]]:
    """What there is to say of each name, sizes in bytes."""
    from ff3r_model.network.named_weights.licences import APACHE
    from ff3r_model.network.named_weights.places import NANO_WEIGHTS
    from ff3r_model.network.named_weights.recipes import NANO, RECIPES

    nano = {
        "name": NANO,
        "use": "trying out: knows synthetic rooms, not the real world",
        "file_bytes": NANO_WEIGHTS.stat().st_size,
        "download_bytes": 0,
        "gpu_bytes": None,
        "licences": [APACHE.title],
        "commercial_use": True,
        "from": ["ships with ff3r"],
        "installed": str(NANO_WEIGHTS),
    }
    return [nano, *map(_row, RECIPES.values())]


def _row(recipe: Recipe) -> dict[str, Any]:
    from ff3r_model.network.named_weights.digests import download_bytes
    from ff3r_model.network.named_weights.memory import file_bytes, gpu_bytes
    from ff3r_model.network.named_weights.places import place_of

    place = place_of(recipe.name)
    return {
        "name": recipe.name,
        "use": recipe.use,
        "file_bytes": place.stat().st_size if place.exists() else file_bytes(recipe),
        "download_bytes": download_bytes(recipe),
        "gpu_bytes": {str(views): round(gpu_bytes(recipe, views)) for views in VIEWS},
        "licences": [licence.title for licence in recipe.licences],
        "commercial_use": recipe.commercial,
        "from": list(dict.fromkeys(source.repository or f"{source.file} (by hand)" for source in recipe.sources)),
        "installed": str(place) if place.exists() else None,
    }


def _table(rows: list[dict[str, Any]]) -> str:
    cells = [COLUMNS, *map(_cells, rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(COLUMNS))]
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in cells
    )


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    memory = row["gpu_bytes"]
    return (
        row["name"],
        row["use"],
        f"{row['file_bytes'] / 1e9:.2f} GB",
        " / ".join(f"{value / 2**30:.1f}" for value in memory.values()) + " GiB" if memory else "under 1 GiB",
        "yes" if row["commercial_use"] else "NO",
        " + ".join(row["licences"]),
        " + ".join(row["from"]),
        "yes" if row["installed"] else "no",
    )


def _licences(recipe: Recipe) -> str:
    return " + ".join(licence.title for licence in recipe.licences)
