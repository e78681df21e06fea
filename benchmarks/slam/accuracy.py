"""The map and its path against the truth, by oracle windows with errors of a known size; exits 1 on a missed limit.

`python -m benchmarks.slam.accuracy --data DIR --json FILE [--pictures DIR]`: DIR holds `sevenscenes_redkitchen` and
`tum_fr3_cabinet`. Without --data: FF3R_TEST_DATA, or `shared/data` beside the repository.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from benchmarks.common import Report
from benchmarks.slam.nano import measure_nano
from benchmarks.slam.pictures import draw_paths
from benchmarks.slam.scores import Run, Scores, drive, score
from ff3r_model.core.types import Window
from ff3r_model.slam.config import MappingConfig
from ff3r_model.synthetic.hall import hall_tour, make_hall
from ff3r_model.synthetic.oracle_engine import OracleEngine, OracleNoise
from ff3r_model.synthetic.sequences import Sequence, rgbd_sequence, room_sequence
from ff3r_model.voxel_map.config import MapConfig

REAL = {"cabinet": "tum_fr3_cabinet", "kitchen": "sevenscenes_redkitchen"}
DATA = Path(os.environ.get("FF3R_TEST_DATA", Path(__file__).resolve().parents[3] / "shared/data"))
CHANNELS = 16
SEEDS = 3
"""Errors are drawn anew so often; figures are root mean squares over them, ratios of such."""
LOOP_METRES = 100.0
STEP = 0.25
"""Metres between the synthetic frames."""
CONFIG = MappingConfig(map=MapConfig(voxel_size=0.05))
EXACT_LIMIT = 1e-3
PATH_LIMIT = 0.02
LOOP_LIMIT = 0.5
OUTLIER_LIMIT = 2.0


@dataclass
class Bench:
    """The report, the limits that were missed, and the sequences."""

    report: Report
    quick: bool = False
    missed: list[str] = field(default_factory=list)
    milliseconds: list[float] = field(default_factory=list)

    def limit(self, key: str, value: float, most: float, note: str) -> None:
        """A figure that must not exceed `most`."""
        self.report.add(key, value, "", f"limit {most:g}; {note}")
        if not value <= most:
            self.missed.append(f"{key} = {value:.4g}, at most {most:g} is allowed")

    def runs(self, sequence: Sequence, noise: OracleNoise, config: MappingConfig = CONFIG) -> list[Scores]:
        """One run per seed."""
        exact = noise == OracleNoise()
        found = []
        for seed in range(1 if exact or self.quick else SEEDS):
            run = drive(OracleEngine(sequence, noise, seed, CHANNELS), CHANNELS, config, sequence.windows())
            found.append(score(run, sequence))
            self.milliseconds.append(found[-1].milliseconds)
        return found

    def describe(self, name: str, scores: list[Scores]) -> None:
        """All figures of a run under its name."""
        for key, unit in (("drift", "m/m"), ("accuracy", "m"), ("completeness", ""), ("posed", ""), ("nbytes", "B")):
            self.report.add(f"{key}_{name}", rms([getattr(one, key) for one in scores]), unit)


def rms(values: list[float]) -> float:
    """Root mean square."""
    return float(np.sqrt(np.square(values).mean()))


def measure(data: Path, bench: Bench, pictures: Path | None) -> None:
    """Everything, in the order of the issue's list."""
    real = {name: rgbd_sequence(data / folder, limit=24 if bench.quick else None) for name, folder in REAL.items()}
    for name, sequence in real.items():
        measure_real(bench, name, sequence)
    length = 40.0 if bench.quick else LOOP_METRES
    hall = room_sequence(make_hall(0, length), hall_tour(length, STEP), name="hall")
    measure_loop(bench, hall, pictures)
    measure_kidnap(bench, hall)
    measure_cap(bench, real["kitchen"])
    measure_metric(bench, real)
    bench.report.add("ms_per_window", float(np.median(bench.milliseconds)), "ms", "median of the runs' medians")
    measure_nano(bench.report, bench.quick)


def measure_real(bench: Bench, name: str, sequence: Sequence) -> None:
    """Exact windows, realistic ones, and ones with many outliers."""
    exact = bench.runs(sequence, OracleNoise())
    bench.limit(f"ate_{name}_none", rms([one.ate for one in exact]), EXACT_LIMIT, "m, Sim(3), exact windows")
    noisy = bench.runs(sequence, OracleNoise.realistic())
    ate = rms([one.ate for one in noisy])
    most = PATH_LIMIT * sequence.path_length
    bench.limit(f"ate_{name}_realistic", ate, most, f"m, Sim(3): 2 % of a path of {sequence.path_length:.1f} m")
    bench.describe(f"{name}_realistic", noisy)
    wild = bench.runs(sequence, OracleNoise.realistic(outliers=0.2))
    ratio = rms([one.ate for one in wild]) / ate
    bench.limit(f"outlier_ratio_{name}", ratio, OUTLIER_LIMIT, "ATE with 20 % outliers over that with 5 %")


def measure_loop(bench: Bench, hall: Sequence, pictures: Path | None) -> None:
    """The corridor that ends where it began, with and without closing the loop."""
    noise = OracleNoise.realistic()
    paths: dict[str, Run] = {}
    figures = {}
    for name, config in (("open", replace(CONFIG, loops=replace(CONFIG.loops, enabled=False))), ("closed", CONFIG)):
        scores = []
        for seed in range(1 if bench.quick else SEEDS):
            run = drive(OracleEngine(hall, noise, seed, CHANNELS), CHANNELS, config, hall.windows())
            scores.append(score(run, hall))
            paths.setdefault(name, run)
        figures[name] = rms([one.ate for one in scores])
        bench.report.add(f"ate_hall_{name}", figures[name], "m", f"Sim(3), path {hall.path_length:.0f} m")
        bench.describe(f"hall_{name}", scores)
    bench.limit(
        "loop_ratio", figures["closed"] / figures["open"], LOOP_LIMIT, "ATE with loop closure over that without"
    )
    if pictures is not None:
        draw_paths(pictures / "mapping_loop.png", hall, {name: run.mapper.trajectory() for name, run in paths.items()})


def measure_kidnap(bench: Bench, hall: Sequence) -> None:
    """The camera vanishes at one place, comes to at another, and walks on until it sees the first again."""
    count = len(hall)
    order = [*range(count // 4), *range(count // 2, count)]  # the tour's end sees its beginning again
    sequence = hall.select(order)
    run = drive(
        OracleEngine(sequence, OracleNoise.realistic(), 0, CHANNELS), CHANNELS, CONFIG, kidnapped(sequence, count // 4)
    )
    submaps = run.submaps
    bench.report.add("kidnap_submaps", max(submaps), "", "at most, on the way: 2 is right")
    bench.report.add("kidnap_submaps_left", submaps[-1], "", "at the end: 1 is right")
    if (max(submaps), submaps[-1]) != (2, 1):
        bench.missed.append(f"a kidnapped camera made {max(submaps)} submaps, and {submaps[-1]} are left: not 2 and 1")
    bench.report.add("ate_kidnap", score(run, sequence).ate, "m", "Sim(3), over both parts")


def kidnapped(sequence: Sequence, cut: int, views: int = 8, overlap: int = 4) -> list[Window]:
    """Windows that start over at frame `cut`: none has frames from before and from after it."""
    starts = [*range(0, cut - overlap, views - overlap), *range(cut, len(sequence) - overlap, views - overlap)]
    ends = [min(start + views, cut if start < cut else len(sequence)) for start in starts]
    return [sequence.window(list(range(start, end))) for start, end in zip(starts, ends, strict=True)]


def measure_cap(bench: Bench, sequence: Sequence) -> None:
    """A map that may hold a tenth of what the scene needs."""
    noise = OracleNoise.realistic()
    free = drive(OracleEngine(sequence, noise, 0, CHANNELS), CHANNELS, CONFIG, sequence.windows())
    cap = free.max_bytes // 10
    config = replace(CONFIG, map=replace(CONFIG.map, max_map_bytes=cap))
    run = drive(OracleEngine(sequence, noise, 0, CHANNELS), CHANNELS, config, sequence.windows())
    bench.limit("max_bytes_over_cap", run.max_bytes / cap, 1.0, f"{cap:,} bytes, a tenth of what the scene takes")
    bench.report.add("ate_cap", score(run, sequence).ate, "m", "Sim(3), under that cap")


def measure_metric(bench: Bench, real: dict[str, Sequence]) -> None:
    """With depth images beside the frames the map is in metres, so SE(3) and the scale mean something."""
    for name, sequence in real.items():
        engine = OracleEngine(sequence, OracleNoise.realistic(), 0, CHANNELS)
        found = score(drive(engine, CHANNELS, CONFIG, sequence.windows(measured=True)), sequence)
        bench.report.add(f"ate_se3_{name}_realistic", found.ate_se3, "m", "SE(3), scale from depth images")
        bench.report.add(f"scale_error_{name}_realistic", found.scale_error, "", "of a map in metres")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the real sequences")
    parser.add_argument("--json", type=Path, help="write the figures to this file, under flat keys")
    parser.add_argument("--pictures", type=Path, help="draw the paths seen from above into this folder")
    parser.add_argument("--quick", action="store_true", help="small sizes, figures without meaning and without limits")
    options = parser.parse_args()
    logging.basicConfig(level=logging.ERROR)
    missing = [folder for folder in REAL.values() if not (options.data / folder).is_dir()]
    if missing:
        print(f"{options.data} lacks {', '.join(missing)}: --data names the folder that has them", file=sys.stderr)
        return 1
    bench = Bench(Report("mapping"), options.quick)
    measure(options.data, bench, options.pictures)
    print(bench.report.table())
    if options.json is not None:
        options.json.write_text(json.dumps(bench.report.figures, indent=1) + "\n")
    for line in bench.missed:
        print(f"missed: {line}", file=sys.stderr)
    return 1 if bench.missed and not options.quick else 0


if __name__ == "__main__":
    sys.exit(main())
