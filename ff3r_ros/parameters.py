"""ROS parameters as fields of a dataclass: each with a description, a range, and when it may change."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable
from typing import Any, Literal

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor, SetParametersResult
from rclpy.node import Node
from rclpy.parameter import Parameter

Change = Literal["never", "unconfigured", "always"]
"""When a parameter may be set: only at start, while the node is unconfigured, or at any time."""
ROS_OWN = ("use_sim_time", "start_type_description_service", "qos_overrides.")
"""Parameters that rclpy declares by itself."""


class ParameterError(ValueError):
    """A parameter that the node cannot use; the message names it, its value and what is allowed."""


def parameter(
    default: bool | int | float | str | list[str],
    description: str,
    *,
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] = (),
    change: Change = "unconfigured",
) -> Any:
    """A dataclass field that is also a ROS parameter."""
    about = {"description": description, "low": low, "high": high, "choices": choices, "change": change}
    if isinstance(default, list):
        return dataclasses.field(default_factory=lambda: list(default), metadata=about)
    return dataclasses.field(default=default, metadata=about)


def declare(node: Node, kind: type[Any]) -> Any:
    """Declare every field of the dataclass `kind` on the node and return an instance with the values given.

    Raises ParameterError for a value outside its range, of the wrong type, or for a name that does not exist.
    """
    fields = dataclasses.fields(kind)
    _refuse_unknown(node, [field.name for field in fields])
    values = {}
    for field in fields:
        default = _default(field)
        given = node._parameter_overrides.get(field.name)  # rclpy offers no public way to look before declaring
        check(field, default if given is None else given.value)
        if isinstance(default, float) and given is not None and given.type_ == Parameter.Type.INTEGER:
            node._parameter_overrides[field.name] = Parameter(field.name, value=float(given.value))
        values[field.name] = node.declare_parameter(field.name, default, descriptor(field)).value
    return kind(**values)


def on_set(
    kind: type[Any], is_configured: Callable[[], bool], apply: Callable[[dict[str, Any]], None]
) -> Callable[[list[Parameter]], SetParametersResult]:
    """A callback for `add_on_set_parameters_callback` that checks ranges and when each parameter may change.

    `apply` may raise ParameterError for values that are in range and yet cannot be.
    """
    fields = {field.name: field for field in dataclasses.fields(kind)}

    def callback(changes: list[Parameter]) -> SetParametersResult:
        own = {change.name: change.value for change in changes if change.name in fields}
        try:
            for name, value in own.items():
                check(fields[name], value)
                if fields[name].metadata["change"] == "unconfigured" and is_configured():
                    raise ParameterError(f"{name} can change only while the node is unconfigured: clean it up before")
            apply(own)
        except ParameterError as error:
            return SetParametersResult(successful=False, reason=str(error))
        return SetParametersResult(successful=True)

    return callback


def check(field: dataclasses.Field[Any], value: Any) -> None:
    """Raises ParameterError unless the value has the type, range and choices of the field."""
    default, about = _default(field), field.metadata
    expected = (int, float) if isinstance(default, float) else type(default)
    if not isinstance(value, expected) or (isinstance(value, bool) and not isinstance(default, bool)):
        raise ParameterError(f"parameter {field.name} = {value!r}: expected {type(default).__name__}")
    if about["choices"] and value not in about["choices"]:
        raise ParameterError(f"parameter {field.name} = {value!r}: allowed are {', '.join(about['choices'])}")
    if about["low"] is not None and not about["low"] <= value <= about["high"]:
        raise ParameterError(f"parameter {field.name} = {value!r}: allowed is {allowed_range(field)}")


def allowed_range(field: dataclasses.Field[Any]) -> str:
    """The range in words."""
    return f"{field.metadata['low']:g} to {field.metadata['high']:g}"


def descriptor(field: dataclasses.Field[Any]) -> ParameterDescriptor:
    """What `ros2 param describe` shows. Ranges stand in words too: rclpy's own range check does not name the value."""
    about = field.metadata
    constraints = ", ".join(about["choices"]) or (allowed_range(field) if about["low"] is not None else "")
    when = {"never": "Fixed at start.", "unconfigured": "Changes while unconfigured.", "always": "Changes at any time."}
    result = ParameterDescriptor(
        description=f"{about['description']} {when[about['change']]}",
        additional_constraints=constraints,
        read_only=about["change"] == "never",
    )
    if about["low"] is not None and isinstance(_default(field), float):
        bounds = FloatingPointRange(from_value=float(about["low"]), to_value=float(about["high"]))
        result.floating_point_range = [bounds]
    elif about["low"] is not None:
        result.integer_range = [IntegerRange(from_value=int(about["low"]), to_value=int(about["high"]))]
    return result


def _refuse_unknown(node: Node, names: list[str]) -> None:
    for name in node._parameter_overrides:
        if name in names or name.startswith(ROS_OWN):
            continue
        close = difflib.get_close_matches(name, names, n=1)
        hint = f"did you mean {close[0]}?" if close else f"known are {', '.join(names)}"
        raise ParameterError(f"parameter {name} does not exist; {hint}")


def _default(field: dataclasses.Field[Any]) -> Any:
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
