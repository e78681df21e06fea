"""Map folder: the one place that `~/save_map` and `~/load_map` reach, whoever sets the parameter map_file."""

from __future__ import annotations

from pathlib import Path

from ff3r_ros.parameters import ParameterError
from ff3r_ros.perception.parameters import NodeParameters


class MapFolder:
    """Where map files may lie: `map_folder`, or else the folder of the map_file that the node was started with.

    Any participant of the ROS domain may set map_file later; fixed at start, the folder keeps it from other files.
    """

    def __init__(self, at_start: NodeParameters) -> None:
        """Raises ParameterError where the map_file at start lies outside of map_folder."""
        given = at_start.map_folder or (Path(at_start.map_file).parent if at_start.map_file else None)
        self._folder = None if given is None else Path(given).expanduser().resolve()
        self._base = self._folder if self._folder is not None and at_start.map_folder else Path.cwd()
        if at_start.map_file:
            self.path(at_start.map_file)

    def path(self, map_file: str) -> Path:
        """The file that a value of map_file means; relative ones count from map_folder, where one was given.

        Raises ParameterError for one outside of the folder (links are followed), and where there is no folder.
        """
        if not map_file:
            raise ParameterError("the parameter map_file is empty: set it to the file to save to or load from")
        if self._folder is None:
            raise ParameterError(
                f"map_file = {map_file!r}: no folder for maps was set at start; start the node with "
                "-p map_folder:=FOLDER, or with a map_file"
            )
        path = (self._base / Path(map_file).expanduser()).resolve()
        if self._folder not in path.parents:
            raise ParameterError(
                f"map_file = {map_file!r} lies outside of {self._folder}, the folder for maps that was set at start"
            )
        return path
