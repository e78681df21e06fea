"""Made-up furniture: a catalogue of boxes, for tests that need no download."""

from __future__ import annotations

from pathlib import Path

from ff3r_model.synthetic.furnished.models import CATALOGUE, MODELS, Archive

BOXES = {
    "Table": (120, 80, 75, 75),
    "Round table": (100, 100, 74, 74),
    "Desk": (140, 70, 74, 74),
    "Chair": (45, 50, 90, None),
    "Wooden chair": (48, 52, 92, None),
    "Armchair": (80, 80, 95, None),
    "Sofa": (200, 90, 85, None),
    "Corner sofa": (180, 95, 80, None),
    "Bed": (150, 210, 60, None),
    "Child bed": (90, 190, 60, None),
    "Wardrobe": (120, 60, 200, None),
    "Fridge": (60, 60, 170, None),
    "Bookcase": (90, 35, 190, None),
    "Cabinet": (90, 45, 85, 85),
    "Floor lamp": (35, 35, 160, None),
    "Plant": (40, 40, 90, None),
    "Cup": (9, 9, 10, None),
    "Plate": (22, 22, 3, None),
    "Book": (17, 24, 4, None),
    "Bottle": (8, 8, 27, None),
    "Cardboard box": (40, 30, 30, None),
}
"""Name → width, depth, height and, where things stand on it, the height for that, in centimetres."""
CUBE = """\
mtllib box.mtl
v 0 0 0
v 1 0 0
v 1 1 0
v 0 1 0
v 0 0 2
v 1 0 2
v 1 1 2
v 0 1 2
usemtl body
f 4 3 2 1
f 1 2 6 5
f 2 3 7 6
f 3 4 8 7
f 4 1 5 8
usemtl front
f 5 6 7 8
"""
"""A box whose front, towards +z in the file, has a colour of its own."""
COLORS = "newmtl body\nKd 0.2 0.3 0.8\nnewmtl front\nKd 0.9 0.1 0.1\n"
ARCHIVE = Archive("Boxes", "0" * 64, "CC0-1.0", "nobody")


def write_catalogue(root: Path, extra: str = "") -> None:
    """A catalogue's folder: its list and its models."""
    lines = []
    for number, (name, (width, depth, height, top)) in enumerate(BOXES.items(), start=1):
        folder = root / f"m{number}"
        folder.mkdir(parents=True)
        (folder / "box.obj").write_text(CUBE)
        (folder / "box.mtl").write_text(COLORS)
        entry = {
            "id": f"Boxes#{name}", "name": name, "category": "Living room", "model": f"/m{number}/box.obj",
            "width": width, "depth": depth, "height": height, "movable": "true", "doorOrWindow": "false",
            "creator": "Nobody", **({} if top is None else {"dropOnTopElevation": top}),
        }  # fmt: skip
        lines += [f"{key}#{number}={value}" for key, value in entry.items()]
    (root / CATALOGUE).write_text("\n".join([*lines, extra, ""]), encoding="latin-1")


def write_world(folder: Path) -> Path:
    """A world folder with that one catalogue; `models.ARCHIVES` must be `(ARCHIVE,)`."""
    write_catalogue(folder / MODELS / ARCHIVE.name)
    return folder
