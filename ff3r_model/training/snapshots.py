"""Training progress in pictures of one window: RGB, rendered RGB, depth, feature colours, masks of words."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy import ndarray
from torch import Tensor, nn

from ff3r_model.frames.prepare import unprepare
from ff3r_model.gaussians.render import Rendering, render
from ff3r_model.network.decode import predict
from ff3r_model.network.model import FF3R
from ff3r_model.visualization.pictures import put_text

WORDS = ("wall", "floor", "ceiling", "chair", "table", "sofa", "bed", "door", "window", "shelf", "lamp", "plant")
"""What the masks tell apart: indoor things that most recordings show some of."""
SHOWN_VIEWS = 4
TITLES = ("image", "rendered", "rendered depth", "feature PCA", "words")
TILE = 224
"""Height of a tile, pixels."""
PCA_ROWS = 100_000
"""Pixels, at most about, from which the colours of features are found."""
BAR = 24
"""Height of titles and legend, pixels."""


class Snapshots:
    """A fixed window, drawn as the network of the moment sees it."""

    def __init__(
        self,
        images: Float[Tensor, "views 3 height width"],
        embeddings: Float[Tensor, "words text"],
        words: Sequence[str] = WORDS,
    ) -> None:
        """`embeddings` are the words' in the network's text space."""
        self.images, self.embeddings, self.words = images, embeddings, tuple(words)

    @torch.no_grad()
    def __call__(self, network: FF3R, device: torch.device) -> tuple[UInt8[ndarray, "h w 3"], dict[str, float]]:
        """The sheet, one row per view, and the figures: `psnr` of the rendered views against the images."""
        images = self.images.to(device)
        rendered = rendered_window(network, images)
        mse = (rendered.colors.clamp(0, 1) - images.permute(0, 2, 3, 1)).square().mean((1, 2, 3))
        labels = self._labels(network, rendered)
        columns = [
            unprepare(images).numpy(force=True),
            unprepare(rendered.colors.permute(0, 3, 1, 2)).numpy(force=True),
            depth_colors(rendered.depth.numpy(force=True)),
            feature_colors(rendered.features).numpy(force=True),
            palette(len(self.words))[labels],
        ]
        psnr = float((-10 * mse.clamp(min=1e-10).log10()).mean())
        return self._sheet([column[:SHOWN_VIEWS] for column in columns], labels), {"psnr": psnr}

    def _labels(self, network: FF3R, rendered: Rendering) -> ndarray:
        rows = rendered.features.flatten(0, 2).float().cpu()
        best = network.text_space.similarity(rows, self.embeddings.cpu()).argmax(-1)
        return best.view(rendered.depth.shape).numpy()

    def _sheet(self, columns: list[ndarray], labels: ndarray) -> UInt8[ndarray, "h w 3"]:
        height, width = columns[0].shape[1:3]
        tile = (round(TILE * width / height), TILE)
        rows = [
            np.concatenate([cv2.resize(image, tile, interpolation=cv2.INTER_NEAREST) for image in row], axis=1)
            for row in zip(*columns, strict=True)
        ]
        titles = np.full((BAR, rows[0].shape[1], 3), 255, np.uint8)
        for index, title in enumerate(TITLES):
            put_text(titles, title, (index * tile[0] + 6, BAR - 7))
        return np.concatenate([titles, *rows, self._legend(rows[0].shape[1], labels)])

    def _legend(self, width: int, labels: ndarray) -> UInt8[ndarray, "h w 3"]:
        """The words found in the window, most of it first, in their colours."""
        legend = np.full((BAR, width, 3), 255, np.uint8)
        counts = np.bincount(labels.ravel(), minlength=len(self.words))
        left = 6
        for index in np.argsort(-counts, kind="stable")[: int((counts > 0).sum())]:
            word = self.words[index]
            cv2.rectangle(legend, (left, 6), (left + 14, 20), palette(len(self.words))[index].tolist(), -1)
            put_text(legend, word, (left + 18, BAR - 7))
            left += 34 + 10 * len(word)
        return legend


def rendered_window(network: FF3R, images: Float[Tensor, "views 3 height width"]) -> Rendering:
    """The network's Gaussians of a window, seen from the network's own cameras; in the mode it was in afterwards."""
    modes = _modes(network)
    network.eval()
    try:
        output = network(images[None], semantics=False)
    finally:
        for module, training in modes:
            module.training = training
    with torch.autocast(images.device.type, enabled=False):
        prediction = predict(output)
        return render(prediction.gaussians, prediction.cameras, *images.shape[-2:])


def depth_colors(depth: Float[ndarray, "views h w"]) -> UInt8[ndarray, "views h w 3"]:
    """Near things red, far ones blue, on one scale for all views; black where nothing is seen."""
    seen = depth > 0
    if not seen.any():
        return np.zeros((*depth.shape, 3), np.uint8)
    near, far = np.log(np.quantile(depth[seen], [0.02, 0.98]))
    share = (far - np.log(np.maximum(depth, 1e-9))) / max(far - near, 1e-6)
    flat = (np.clip(share, 0, 1) * 255).astype(np.uint8).reshape(len(depth), -1)
    colors = cv2.applyColorMap(flat, cv2.COLORMAP_TURBO)[..., ::-1].reshape(*depth.shape, 3)
    return np.where(seen[..., None], colors, 0).astype(np.uint8)


def feature_colors(features: Float[Tensor, "views h w channels"]) -> UInt8[Tensor, "views h w 3"]:
    """The three directions in which features differ most, as RGB, on one scale for all views."""
    rows = features.flatten(0, 2).float()
    centred = rows - rows.mean(0)
    some = centred[:: max(1, len(rows) // PCA_ROWS)]
    covariance = some.T @ some / len(some)
    _, vectors = torch.linalg.eigh(covariance.double().cpu())
    top = centred @ vectors[:, -3:].flip(1).to(centred)
    low, high = (top[:: max(1, len(rows) // PCA_ROWS)].quantile(q, dim=0) for q in (0.02, 0.98))
    shares = ((top - low) / (high - low).clamp(min=1e-9)).clamp(0, 1)
    return (shares * 255).round().to(torch.uint8).view(*features.shape[:3], 3)


def palette(count: int) -> UInt8[ndarray, "count 3"]:
    """Colours that differ in hue and lightness."""
    hues = (np.arange(count) * 0.618034 % 1 * 180).astype(np.uint8)
    values = np.where(np.arange(count) % 2, 255, 175).astype(np.uint8)
    hsv = np.stack([hues, np.full(count, 190, np.uint8), values], axis=-1)[None]
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)[0]


def _modes(network: nn.Module) -> list[tuple[nn.Module, bool]]:
    return [(module, module.training) for module in network.modules()]
