"""Memory that a checkpoint takes on a GPU, by a formula from the published sizes of its parts.

Assumed: the torch engine, bf16 where it has it, windows of 448×336, views decoded eight at a time, 64 channels a
Gaussian, lifting mode, its cache of frames full. Not counted: the map, whose memory has a cap of its own, and
fragmentation.
"""

from __future__ import annotations

from ff3r_model.network.named_weights.recipes import Recipe

SIZE = (336, 448)
"""Height and width of the network's images."""
PATCH = 14
CHANNELS = 64
"""Of the semantic feature of each Gaussian."""
CHUNK = 8
"""Views that the dense heads take at once."""
KEPT_LAYERS = 4
REST_OF_HEAD = 30
"""Numbers per pixel beside the depth head's channels: position embedding, outputs, the image."""
REST_OF_GAUSSIAN = 28
"""Numbers per pixel beside the feature: mean, scale, rotation, colour, …, and what they are computed from."""
CACHE_FRAMES, CACHE_BYTES = 128, 2 * 2**30
"""Bounds of the cache of frames."""
CUDA = 0.5 * 2**30
"""Bytes that CUDA and its libraries take before anything runs. An estimate; nobody has measured it here."""


def gpu_bytes(recipe: Recipe, views: int, size: tuple[int, int] = SIZE) -> float:
    """Bytes on the GPU in all for windows of `views` images: weights, the network at work, cached frames, CUDA."""
    return weights_bytes(recipe) + peak_bytes(recipe, views, size) + cache_bytes(recipe, size) + CUDA


def file_bytes(recipe: Recipe) -> int:
    """Of the converted checkpoint, float32."""
    return 4 * sum(part.trunk + part.rest for part in (recipe.geometry, recipe.semantics))


def weights_bytes(recipe: Recipe) -> int:
    """Of weights on a GPU: bf16 where autocast would cast them, else float32."""
    return sum(2 * part.trunk + 4 * part.rest for part in (recipe.geometry, recipe.semantics))


def cache_bytes(recipe: Recipe, size: tuple[int, int] = SIZE) -> int:
    """Of the features that are kept of frames: the encoder's tokens, the lifted map, the image."""
    frame = 4 * (_tokens(size) * recipe.geometry.width + CHANNELS * _cells(recipe, size) + 3 * size[0] * size[1])
    return min(CACHE_BYTES, CACHE_FRAMES * frame)


def peak_bytes(recipe: Recipe, views: int, size: tuple[int, int] = SIZE) -> int:
    """The most that is alive at once beside weights, from images to Gaussians: that of the largest of four stages."""
    geometry, semantics, pixels = recipe.geometry, recipe.semantics, size[0] * size[1]
    tokens, cells, chunk = views * _tokens(size), _cells(recipe, size), min(views, CHUNK)
    # What later stages read: the encoder's tokens, the lifted map, and four layers of both halves.
    lifted = 4 * views * CHANNELS * cells
    patches = 4 * tokens * geometry.width
    kept = KEPT_LAYERS * 4 * tokens * 2 * geometry.width
    stages = (
        patches + lifted + chunk * semantics.head * cells,
        # Residual stream and MLP of all views at once.
        patches + lifted + kept + 2 * 4 * tokens * geometry.width + 2 * 2 * tokens * 4 * geometry.width,
        # Depth head: two copies at full resolution, and what each pixel has beside them.
        patches + lifted + kept + chunk * 4 * (2 * geometry.detail + REST_OF_HEAD) * pixels,
        # Gaussians: the map once more, in another layout, and all numbers of every pixel.
        2 * lifted + kept // KEPT_LAYERS + 4 * views * pixels * (CHANNELS + REST_OF_GAUSSIAN),
    )
    return max(stages)


def _tokens(size: tuple[int, int]) -> int:
    """Patches of a view; camera and register tokens beside hundreds of them are left out."""
    return (size[0] // PATCH) * (size[1] // PATCH)


def _cells(recipe: Recipe, size: tuple[int, int]) -> int:
    return _tokens(size) * recipe.semantics.detail
