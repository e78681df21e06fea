"""`ff3r world`: the furniture of the synthetic rooms, fetched and shown."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg, subcommand

from ff3r_model.cli.steps_shown import steps_shown
from ff3r_model.core.errors import UserError


@dataclass(frozen=True)
class Fetch:
    """Get the furniture models of the synthetic rooms: 670 of Sweet Home 3D's, CC0 and CC-BY 3.0, 120 MB.

    From Debian's package sweethome3d-furniture where it is installed, else by `apt-get download`, which needs no root.
    Credits are written beside the models and belong with everything that is made of them.
    """

    files: Positional[tuple[Path, ...]] = ()
    """The package (.deb) or its five archives (.sh3f), where they have been fetched otherwise."""
    folder: Path | None = None
    """Where the models go; $FF3R_WORLD, else ~/.local/share/ff3r/world, if not given."""

    def __call__(self) -> str:
        from ff3r_model.synthetic.furnished import fetch
        from ff3r_model.synthetic.furnished.models import world_folder

        folder = (self.folder or world_folder()).expanduser()
        with steps_shown(fetch.__name__):
            count = fetch.fetch(folder, self.files)
        return f"{count} models in {folder}; whom to credit: {folder / fetch.CREDITS}"


@dataclass(frozen=True)
class Show:
    """Draw views of one furnished room: pictures, depth and classes."""

    output: Annotated[Path, arg(aliases=["-o"])]
    """Picture to write (.png or .jpg)."""
    seed: int = 0
    """Which room."""
    views: int = 4
    """How many cameras look at it, 1 to 16."""
    held_out: bool = False
    """Furnish it with the models that training never sees."""
    folder: Path | None = None
    """Where the models are; $FF3R_WORLD, else ~/.local/share/ff3r/world, if not given."""

    def __call__(self) -> str:
        from ff3r_model.core.output_folder import check_output_file
        from ff3r_model.evaluation.room_sheets import room_sheet
        from ff3r_model.synthetic.furnished import make_furnished_room, open_library
        from ff3r_model.visualization.pictures import save_picture, suffix_of

        if not 1 <= self.views <= 16:
            raise UserError(f"--views must be 1 to 16, not {self.views}")
        suffix_of(self.output)
        check_output_file(self.output)
        room = make_furnished_room(self.seed, open_library(self.held_out, self.folder))
        save_picture(self.output, room_sheet(room, self.views))
        return f"{self.output}: {', '.join(sorted({thing.name for thing in room.instances}))}"


@dataclass(frozen=True)
class World:
    """The synthetic world of furnished rooms: get its furniture, look at its rooms."""

    command: Annotated[
        Annotated[Fetch, subcommand("fetch")] | Annotated[Show, subcommand("show")],
        arg(name=""),
    ]

    def __call__(self) -> str:
        return self.command()
