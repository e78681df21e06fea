"""A library of furniture: models by class, with their meshes, and pictures to hang on walls."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

from ff3r_model.synthetic.furnished.meshes import Mesh, MeshCache
from ff3r_model.synthetic.furnished.models import Model, load_catalogue, split, world_folder

MESHES = "meshes"
PICTURES = 60
"""Pictures on models that are used elsewhere, at most."""
TRIES = 10


def open_library(held_out: bool, folder: Path | None = None) -> Library:
    """The models for training, or those that are held out for evaluation. Raises MissingModels where there are none."""
    place = folder or world_folder()
    return Library(split(load_catalogue(place), held_out), MeshCache(place / MESHES))


class Library:
    """Models of one split by class, with their meshes."""

    def __init__(self, models: Sequence[Model], cache: MeshCache) -> None:
        self.cache = cache
        self.by_class: dict[str, list[Model]] = {}
        for model in models:
            self.by_class.setdefault(model.class_name, []).append(model)

    @cached_property
    def pictures(self) -> list[UInt8[ndarray, "_ _ 3"]]:
        """Pictures on the models that are large enough to hang on a wall, at most so many."""
        found: list[UInt8[ndarray, "_ _ 3"]] = []
        for model in (model for models in self.by_class.values() for model in models):
            mesh = self.cache.get(model) if len(found) < PICTURES else None
            textures = () if mesh is None else (each.texture for each in mesh.materials)
            found += [each for each in textures if each is not None and min(each.shape[:2]) >= 64]
        return found[:PICTURES]

    def pick(
        self, rng: np.random.Generator, names: Sequence[str], fits: Callable[[Model], bool]
    ) -> tuple[Model, Mesh] | None:
        """A model of one of these classes: first the class, then the model, each with equal chances."""
        for _ in range(TRIES):
            models = [model for model in self.by_class.get(str(rng.choice(names)), ()) if fits(model)]
            if not models:
                continue
            model = models[int(rng.integers(len(models)))]
            mesh = self.cache.get(model)
            if mesh is not None:
                return model, mesh
        return None
