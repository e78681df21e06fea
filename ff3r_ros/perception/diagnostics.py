"""Diagnostics: the worker's status and the node's own counters → diagnostic_msgs."""

from __future__ import annotations

from collections.abc import Mapping

from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from std_msgs.msg import Header

from ff3r_ros.perception.worker import WorkerStatus

MANY_LATE = 5
"""Images in a row that are no newer than those before, from which on the camera's clock is to blame."""
MAX_VALUE = 500
"""Characters of a value; names and encodings in messages from anybody end up here."""
LOST = "tracking lost: mapping part {} apart from the map that is shown (part {})"
NOT_METRIC = "no: RGB alone has no scale; give camera_height, odom_frame or use_depth"


def diagnostics(
    stamp: Time, name: str, state: str, status: WorkerStatus, dropped: Mapping[str, int], notes: Mapping[str, str]
) -> DiagnosticArray:
    """One status. `dropped` are the node's own drops (messages that never became frames), by reason.

    `notes` are further values; those under "problem" set the level to WARN and stand in the message.
    """
    level, message = _verdict(state, status, notes.get("problem", ""))
    all_dropped = dict(status.dropped)
    for reason, count in dropped.items():
        all_dropped[reason] = all_dropped.get(reason, 0) + count
    values = {"state": state, **_values(status), "frames dropped": str(sum(all_dropped.values()))}
    values |= {f"dropped: {reason}": str(count) for reason, count in sorted(all_dropped.items())}
    values |= dict(notes)
    entry = DiagnosticStatus(level=level, name=f"{name}: semantic map", message=message[:MAX_VALUE], hardware_id="ff3r")
    entry.values = [KeyValue(key=key, value=value[:MAX_VALUE]) for key, value in values.items()]
    return DiagnosticArray(header=Header(stamp=stamp), status=[entry])


def _verdict(state: str, status: WorkerStatus, problem: str) -> tuple[bytes, str]:
    if status.error:
        return DiagnosticStatus.ERROR, status.error
    if problem:
        return DiagnosticStatus.WARN, problem
    if status.late_in_a_row >= MANY_LATE:
        return DiagnosticStatus.WARN, f"the last {status.late_in_a_row} images were dropped: {status.last_drop}"
    if status.submap != status.shown:
        return DiagnosticStatus.WARN, LOST.format(status.submap, status.shown)
    if status.last_window:
        return DiagnosticStatus.WARN, status.last_window
    return DiagnosticStatus.OK, state if not status.windows else f"mapping, {status.voxels} voxels"


def _values(status: WorkerStatus) -> dict[str, str]:
    stages = {f"seconds: {stage}": f"{seconds:.4f}" for stage, seconds in status.seconds.items()}
    return {
        "frames in": str(status.received),
        "windows": str(status.windows),
        "windows not used": str(status.rejected_windows),
        "windows not trusted": str(status.untrusted),
        "latency": f"{status.latency:.3f}",
        **stages,
        "submap": str(status.submap),
        "submap shown": str(status.shown),
        "submaps": str(status.submaps),
        "corrections": str(status.corrections),
        "voxels": str(status.voxels),
        "map bytes": str(status.map_bytes),
        "metric": f"yes, by {status.scale_source}" if status.metric else _not_metric(status),
        "focal length": status.camera,
        "engine": status.engine,
        "queries": str(status.queries),
        "queries in doubt": "; ".join(status.doubts),
        "queries refused": str(status.refused_queries),
        "last refusal": status.last_refusal,
        "last drop": status.last_drop,
        "time jumps": str(status.time_jumps),
        "failures": str(status.failures),
        "last error": status.last_error,
    }


def _not_metric(status: WorkerStatus) -> str:
    return f"no, not yet: {status.why_unscaled}" if status.why_unscaled else NOT_METRIC
