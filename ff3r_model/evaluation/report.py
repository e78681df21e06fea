"""Results as a Markdown table and a page of pictures."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ff3r_model.core.output_folder import check_output_file
from ff3r_model.evaluation.errors import EvaluationError

Result = dict[str, Any]

INTRODUCTION = "Written by `ff3r eval report`. In parentheses: the constant predictor."
PAGE = "report.md"
NOT_MEASURED = "not measured"


class ReportError(EvaluationError):
    """A file that holds no results of `ff3r eval`."""


@dataclass(frozen=True)
class Row:
    """One figure of the table: its key, its name for readers, and how its numbers are written."""

    key: str
    name: str
    pattern: str


ROWS = (
    Row("depth_rel", "depth Rel ↓", "{:.1%}"),
    Row("depth_tau", "depth τ, 1.03 ↑", "{:.1%}"),
    Row("depth_rel_refined", "depth Rel, refined ↓", "{:.1%}"),
    Row("depth_rel_calibrated", "depth Rel, refined, intrinsics known ↓", "{:.1%}"),
    Row("auc5", "AUC@5, network ↑", "{:.3f}"),
    Row("auc15", "AUC@15, network ↑", "{:.3f}"),
    Row("auc30", "AUC@30, network ↑", "{:.3f}"),
    Row("auc5_refined", "AUC@5, refined ↑", "{:.3f}"),
    Row("auc15_refined", "AUC@15, refined ↑", "{:.3f}"),
    Row("auc30_refined", "AUC@30, refined ↑", "{:.3f}"),
    Row("auc5_calibrated", "AUC@5, refined, intrinsics known ↑", "{:.3f}"),
    Row("auc15_calibrated", "AUC@15, refined, intrinsics known ↑", "{:.3f}"),
    Row("auc30_calibrated", "AUC@30, refined, intrinsics known ↑", "{:.3f}"),
    Row("ate", "ATE, network, m ↓", "{:.3f}"),
    Row("ate_refined", "ATE, refined, m ↓", "{:.3f}"),
    Row("ate_calibrated", "ATE, refined, intrinsics known, m ↓", "{:.3f}"),
    Row("miou", "mIoU, classes ↑", "{:.3f}"),
    Row("accuracy", "accuracy, classes ↑", "{:.3f}"),
    Row("classes", "classes present", "{:.0f}"),
    Row("miou_attributes", "mIoU, colour and class ↑", "{:.3f}"),
    Row("miou_synonyms", "mIoU, unread synonyms ↑", "{:.3f}"),
    Row("miou_synonyms_taught", "mIoU, synonyms read but never shown ↑", "{:.3f}"),
    Row("miou_rendered", "mIoU, rendered at held-out views ↑", "{:.3f}"),
    Row("accuracy_rendered", "accuracy, rendered at held-out views ↑", "{:.3f}"),
    Row("psnr", "PSNR, held-out views, dB ↑", "{:.2f}"),
    Row("ssim", "SSIM ↑", "{:.3f}"),
    Row("lpips", "LPIPS ↓", "{:.3f}"),
    Row("copied_psnr", "PSNR of the nearest input view, copied", "{:.2f}"),
    Row("copied_ssim", "SSIM of the same", "{:.3f}"),
    Row("gaussians", "Gaussians", "{:,.0f}"),
    Row("voxels", "… after voxelization", "{:,.0f}"),
    Row("seconds_per_window", "seconds per window", "{:.2f}"),
    Row("seconds_per_window_refined", "… with refinement", "{:.2f}"),
    Row("cpu_seconds_per_window", "CPU seconds per window", "{:.2f}"),
    Row("render_seconds_per_view", "seconds to render a view", "{:.2f}"),
    Row("peak_mib", "peak memory above the weights, MiB", "{:,.0f}"),
)
"""In the order of the table."""


def load_results(paths: Sequence[Path]) -> list[tuple[Path, Result]]:
    """All runs of all files, each with its file. Raises ReportError."""
    found = []
    for path in paths:
        try:
            data = json.loads(path.read_text())
            runs = [data] if "benchmark" in data else list(data.values())
            for run in runs:
                check_result(run)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ReportError(f"{path} holds no results of ff3r eval: {type(error).__name__} {error}") from error
        found += [(path, run) for run in runs]
    return found


def check_result(run: Any) -> None:
    """Raise KeyError or TypeError for what is no result of one run."""
    texts, figures = ("checkpoint", "sha256"), [row.key for row in ROWS] + [f"constant_{row.key}" for row in ROWS]
    for key in ("benchmark", "views", "windows", *texts):
        run[key]
    wrong = [key for key in texts if not isinstance(run[key], str)]
    wrong += [key for key in figures if not isinstance(run.get(key), float | int | None)]
    if wrong or not all(isinstance(picture, str) for picture in run.get("pictures", [])):
        raise TypeError(f"{wrong[0] if wrong else 'pictures'} is no figure of ours")


def table(results: Sequence[Result]) -> str:
    """Figures as rows, runs as columns; in parentheses what the constant predictor gets."""
    head = ["", *(f"{run['benchmark']}, {run['views']} views" for run in results)]
    lines = [head, ["---"] * len(head), ["windows", *(str(run["windows"]) for run in results)]]
    for row in ROWS:
        if any(row.key in run for run in results):
            lines.append([row.name, *(_cell(run, row) for run in results)])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _cell(run: Result, row: Row) -> str:
    value, constant = run.get(row.key), run.get(f"constant_{row.key}")
    if value is None:
        return NOT_MEASURED
    beside = "" if constant is None or row.key == "classes" else f" ({row.pattern.format(constant)})"
    return row.pattern.format(value) + beside


def write_report(paths: Sequence[Path], folder: Path) -> Path:
    """Write report.md and the pictures beside it; returns the page. Raises ReportError."""
    results = load_results(paths)
    check_output_file(folder / PAGE)
    if (folder / PAGE).is_file() and INTRODUCTION not in (folder / PAGE).read_text(errors="replace"):
        raise ReportError(f"{folder / PAGE} is there and no report of ours: choose another folder")
    page = ["# Figures", "", INTRODUCTION, ""]
    for benchmark in dict.fromkeys(run["benchmark"] for _, run in results):
        page += [table([run for _, run in results if run["benchmark"] == benchmark]), ""]
    for path, run in results:
        page.append(f"## {run['benchmark']}, {run['views']} views\n\n{_origin(run)}\n")
        for picture in run.get("pictures", []):
            source = path.parent / picture
            name = re.sub(r"\W+", "_", f"{run['benchmark']} {run['views']} {source.stem}") + ".png"
            if source.is_file():
                shutil.copyfile(source, folder / name)
                page.append(f"![{source.stem.replace('_', ' ')}]({name})\n")
    (folder / PAGE).write_text("\n".join(page))
    return folder / PAGE


def _origin(run: Result) -> str:
    asked = f", seeds {run['seeds']}" if "seeds" in run else ""
    return f"{run['windows']} windows{asked}, checkpoint {run['checkpoint']} (sha256 {run['sha256'][:12]}…)."
