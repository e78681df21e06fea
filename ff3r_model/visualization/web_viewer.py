"""Web viewer: map, camera, masks and queries in a browser, through viser. Knows no ROS."""

from __future__ import annotations

import html
import io
import logging
import math
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import viser
from jaxtyping import Float, UInt8
from numpy import ndarray

from ff3r_model.visualization.pictures import below_ceiling
from ff3r_model.visualization.web_address import LOCALHOST, listen, urls
from ff3r_model.visualization.web_guard import guard
from ff3r_model.visualization.web_server import open_server

log = logging.getLogger(__name__)

DEFAULT_PORT = 8080
MAX_POINTS = 300_000
"""Larger clouds are thinned evenly: browsers on small machines stutter beyond."""
MAX_WAITING = 8
"""Queries from the page that may wait for their answers."""
POINT_SCALES = (0.2, 2.0)
"""Least and largest of the slider."""
PALETTE = (
    (230, 25, 75),
    (0, 130, 200),
    (245, 130, 48),
    (60, 180, 75),
    (145, 30, 180),
    (0, 180, 180),
    (240, 50, 230),
    (170, 110, 40),
    (128, 128, 0),
    (0, 0, 150),
)
"""Colours of masks, far apart; queries beyond the tenth reuse them."""
PATH_COLOR = (30, 100, 220)
NO_POINTS: Float[ndarray, "0 3"] = np.zeros((0, 3), dtype=np.float32)


@dataclass(frozen=True)
class ShownQuery:
    """A text query as the viewer lists and paints it."""

    id: int
    text: str
    voxels: Float[ndarray, "n 3"] = field(default_factory=lambda: NO_POINTS)
    """Centres of the voxels that match."""

    @property
    def color(self) -> tuple[int, int, int]:
        return PALETTE[self.id % len(PALETTE)]


@dataclass(frozen=True)
class _Row:
    """A query's place in the panel."""

    line: viser.GuiHtmlHandle
    remove: viser.GuiButtonHandle | None


class Viewer:
    """One page, served to this machine alone unless `host` is another. Methods may be called from any thread.

    Pages of other sites that are open in the same browser cannot read it (`web_guard`).
    """

    def __init__(
        self,
        port: int = DEFAULT_PORT,
        host: str = LOCALHOST,
        *,
        allowed_hosts: Iterable[str] = (),
        on_query: Callable[[str], None] | None = None,
        on_remove: Callable[[int], None] | None = None,
    ) -> None:
        """Serve on `port` (0: any free one), or on the next free port, with a warning, where that one is taken.

        `allowed_hosts` are further names by which browsers reach it, through a proxy for example. Raises AddressError
        for a host, port or name that cannot be.
        """
        self._on_query, self._on_remove = on_query, on_remove
        self._waiting = threading.BoundedSemaphore(MAX_WAITING)
        checks, listening = guard(host, allowed_hosts), listen(host, port)
        self.urls, self.port = urls(listening, host), listening.getsockname()[1]
        """Where a browser finds the page: first on this machine, then on others, if they may."""
        self._server = open_server(listening, checks, label="FF3R")
        if port not in (0, self.port):
            log.warning("port %d is in use: the viewer is on port %d instead", port, self.port)
        self._cloud: tuple[ndarray, ndarray, float] | None = None
        self._path = NO_POINTS
        self._queries: dict[int, ShownQuery] = {}
        self._rows: dict[int, _Row] = {}
        self._masked: set[int] = set()
        self._voxel_size = 0.05
        self._framed: ndarray | None = None
        self._build_scene()
        self._build_panel()

    @property
    def url(self) -> str:
        """Where a browser on this machine finds the page."""
        return self.urls[0]

    @property
    def browsers(self) -> int:
        """How many look at the page now."""
        return len(self._server.get_clients())

    def show_cloud(self, points: Float[ndarray, "n 3"], colors: UInt8[ndarray, "n 3"], voxel_size: float) -> None:
        """Replace the map's points. z is up."""
        stride = -(-len(points) // MAX_POINTS) if len(points) else 1
        self._voxel_size = voxel_size
        self._cloud = (points[::stride], colors[::stride], voxel_size * stride ** (1 / 3))
        self._draw_cloud()
        if len(points):
            self._look_at(points)

    def show_path(self, positions: Float[ndarray, "n 3"]) -> None:
        """Replace the camera's path; a row of NaN ends a piece of it."""
        pieces = positions.astype(np.float32)
        self._path = pieces[np.isfinite(pieces).all(axis=1)]
        segments = np.stack([pieces[:-1], pieces[1:]], axis=1)
        segments = segments[np.isfinite(segments).all(axis=(1, 2))]
        if len(segments):
            self._server.scene.add_line_segments("/path", segments, PATH_COLOR, thickness=3.0, thickness_units="screen")

    def show_camera(
        self, map_from_camera: Float[ndarray, "4 4"], image: UInt8[ndarray, "h w 3"] | None, fov: float, scale: float
    ) -> None:
        """The camera as a frustum (`fov` vertical, radians; `scale` its length) with its image inside."""
        aspect = image.shape[1] / image.shape[0] if image is not None else 4 / 3
        self._server.scene.add_camera_frustum(
            "/camera",
            fov,
            aspect,
            scale=scale,
            color=PATH_COLOR,
            image=image,
            format="jpeg",
            wxyz=viser.transforms.SO3.from_matrix(map_from_camera[:3, :3].astype(np.float64)).wxyz,
            position=map_from_camera[:3, 3],
        )

    def show_image(self, image: UInt8[ndarray, "h w 3"]) -> None:
        """The current camera frame, in the panel."""
        self._image.image = image
        self._image.visible = True

    def show_status(self, text: str) -> None:
        """The text at the panel's top, line by line."""
        content = _small(html.escape(text).replace("\n", "<br>"))
        if self._status.content != content:
            self._status.content = content

    def show_queries(self, queries: Sequence[ShownQuery]) -> None:
        """Replace the list of queries and their masks."""
        before, self._queries = self._queries, {query.id: query for query in queries}
        for gone in before.keys() - self._queries.keys():
            self._unlist(gone)
            self._erase_mask(gone)
        for query in queries:
            self._list_query(query)
            old = before.get(query.id)
            if old is None or not np.array_equal(old.voxels, query.voxels):
                self._draw_mask(query)
        self._empty_hint.visible = not queries

    def close(self) -> None:
        """Stop serving."""
        with redirect_stdout(io.StringIO()):
            self._server.stop()

    def _build_scene(self) -> None:
        self._server.scene.set_up_direction("+z")
        self._server.scene.world_axes.visible = False
        self._server.scene.add_frame("/map", axes_length=0.2, axes_radius=0.006)
        self._server.initial_camera.position = (-3.0, 0.0, 4.0)
        self._server.initial_camera.look_at = (1.0, 0.0, -0.5)

    def _build_panel(self) -> None:
        gui = self._server.gui
        gui.configure_theme(control_width="medium", show_logo=False, show_share_button=False)
        gui.set_panel_label("FF3R semantic map")
        self._status = gui.add_html(_small("waiting for the first map …"))
        if self._on_query is not None:
            self._text = gui.add_text("Find", "", hint='What to look for, e.g. "red chair"')
            gui.add_button("Search the map").on_click(lambda _: self._submit())
        self._list = gui.add_folder("Queries")
        with self._list:
            self._empty_hint = gui.add_html(_small("none yet"))
        with gui.add_folder("View"):
            self._ceiling = gui.add_checkbox("Hide the ceiling", True)
            self._masks = gui.add_checkbox("Masks", True)
            self._size = gui.add_slider("Point size", *POINT_SCALES, 0.1, 1.0)
        for control in (self._ceiling, self._size):
            control.on_update(lambda _: self._draw_cloud())
        self._masks.on_update(lambda _: self._draw_masks())
        self._image = gui.add_image(np.full((3, 4, 3), 230, dtype=np.uint8), label="Camera", visible=False)

    def _submit(self) -> None:
        """Called by viser in threads of its own; what too many clicks ask for at once is left out."""
        text = self._text.value.strip()
        if not text or self._on_query is None or not self._waiting.acquire(blocking=False):
            return
        try:
            self._on_query(text)
            self._text.value = ""  # type: ignore[misc]  # viser's stubs call it read-only
        finally:
            self._waiting.release()

    def _draw_cloud(self) -> None:
        if self._cloud is None:
            return
        points, colors, size = self._cloud
        if self._ceiling.value:
            keep = below_ceiling(points, self._path)
            points, colors = points[keep], colors[keep]
        self._server.scene.add_point_cloud(
            "/cloud",
            points.astype(np.float32),
            colors,
            point_size=size * self._point_scale(),
            point_shape="rounded",
            precision="float32",
        )

    def _point_scale(self) -> float:
        """What the slider says; viser takes any number from a browser."""
        value = float(self._size.value)
        return min(max(value, POINT_SCALES[0]), POINT_SCALES[1]) if math.isfinite(value) else 1.0

    def _draw_masks(self) -> None:
        for query in self._queries.values():
            self._draw_mask(query)

    def _draw_mask(self, query: ShownQuery) -> None:
        if not len(query.voxels):
            self._erase_mask(query.id)
            return
        visible = bool(self._masks.value)
        self._server.scene.add_point_cloud(
            f"/masks/q{query.id}",
            query.voxels.astype(np.float32),
            query.color,
            point_size=1.3 * self._voxel_size * self._point_scale(),
            point_shape="square",
            point_shading="flat",
            precision="float32",
            visible=visible,
        )
        middle = np.median(query.voxels, axis=0)
        self._server.scene.add_label(f"/masks/label{query.id}", query.text, position=middle, visible=visible)
        self._masked.add(query.id)

    def _erase_mask(self, query_id: int) -> None:
        if query_id in self._masked:
            self._masked.remove(query_id)
            self._server.scene.remove_by_name(f"/masks/q{query_id}")
            self._server.scene.remove_by_name(f"/masks/label{query_id}")

    def _list_query(self, query: ShownQuery) -> None:
        content = _query_line(query)
        if query.id in self._rows:
            line = self._rows[query.id].line
            if line.content != content:
                line.content = content
            return
        with self._list:
            line, remove = self._server.gui.add_html(content), None
            if self._on_remove is not None:
                label = query.text if len(query.text) <= 30 else query.text[:29] + "…"
                remove = self._server.gui.add_button(f"Remove {label}", color=query.color, icon=viser.Icon.TRASH)
                remove.on_click(partial(self._removed, query.id))
        self._rows[query.id] = _Row(line, remove)

    def _removed(self, query_id: int, _: object) -> None:
        if self._on_remove is not None:
            self._on_remove(query_id)

    def _unlist(self, query_id: int) -> None:
        row = self._rows.pop(query_id)
        row.line.remove()
        if row.remove is not None:
            row.remove.remove()

    def _look_at(self, points: Float[ndarray, "n 3"]) -> None:
        """Where browsers start: seeing the whole map from above and behind. Those that look already move only once."""
        low, high = np.quantile(points[:: 1 + len(points) // 10_000], (0.02, 0.98), axis=0)
        if self._framed is not None and np.abs(self._framed - [low, high]).max() < 0.1 * np.linalg.norm(high - low):
            return
        centre, reach = (low + high) / 2, max(float(np.linalg.norm(high - low)), 1e-3)
        position = centre + reach * np.array([-0.65, 0.1, 0.7])
        self._server.initial_camera.look_at, self._server.initial_camera.position = centre, position
        if self._framed is None:
            for client in self._server.get_clients().values():
                client.camera.position, client.camera.look_at = position, centre
        self._framed = np.array([low, high])


def _query_line(query: ShownQuery) -> str:
    """HTML; the text, which anybody may have sent, is escaped."""
    red, green, blue = query.color
    square = f'<span style="color: rgb({red},{green},{blue})">■</span>'
    return _small(f"{square} <b>{html.escape(query.text)}</b> · {len(query.voxels):,} voxels")


def _small(content: str) -> str:
    return f'<div style="padding: 0.2em 0.8em; font-size: 0.85em; overflow-wrap: anywhere">{content}</div>'
