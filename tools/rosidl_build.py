"""Build a ROS 2 message package for Python without CMake.

`generate` drives the rosidl generators through their argument files, as ament_cmake does; `extension` then describes
ONE extension module, `<package>/<package>_s__rosidl_typesupport_c`, that holds the C structs, the type description and
its hash, the type supports that FastDDS uses and the conversion between C and Python: no libraries of our own have to
be found at run time, so it works from a checkout too. On a native ROS, CMake builds the messages
instead (CMakeLists.txt), with type support for every middleware.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
from pathlib import Path
from typing import Any

from setuptools import Extension

FASTDDS, INTROSPECTION = "rosidl_typesupport_fastrtps_c", "rosidl_typesupport_introspection_c"
GENERATORS = ("rosidl_generator_c", "rosidl_generator_py", "rosidl_generator_type_description", FASTDDS, INTROSPECTION)
DISPATCH = Path(__file__).resolve().parent / "type_support.cpp.in"


class RosidlMissing(RuntimeError):
    """The rosidl generators, or messages that ours are made of, are not installed."""


def prefixes() -> list[Path]:
    """Install prefixes to look for ROS packages in: $AMENT_PREFIX_PATH, then the one that holds the generators.

    The latter is the virtual environment, or pip's overlay when pip isolates builds, so sys.prefix would not do.
    """
    found = [Path(entry) for entry in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if entry]
    spec = importlib.util.find_spec("rosidl_generator_py")
    if spec and spec.origin:
        prefix = Path(spec.origin).parents[4]  # prefix/lib/python3.x/site-packages/rosidl_generator_py/__init__.py
        if prefix not in found and (prefix / "share/ament_index").is_dir():
            found.append(prefix)
    return found


def share(package: str) -> Path:
    """The share folder of an installed ROS package; raises RosidlMissing."""
    for prefix in prefixes():
        if (prefix / "share" / package).is_dir():
            return prefix / "share" / package
    looked = ", ".join(map(str, prefixes())) or "no ROS prefix at all"
    raise RosidlMissing(f"ROS package {package!r} not found in {looked}")


def check(dependencies: list[str]) -> None:
    """Raise RosidlMissing unless everything is there to build messages made of `dependencies`."""
    for module in ("numpy", "rosidl_adapter", *GENERATORS):
        if importlib.util.find_spec(module) is None:
            raise RosidlMissing(f"Python module {module!r} is not installed")
    for package in (*GENERATORS, *dependencies):
        share(package)


def generate(package: str, root: Path, dependencies: list[str], out: Path) -> None:
    """Write the sources of every root/msg/*.msg: C and C++ below out/c and out/introspection, Python below out/py."""
    from rosidl_adapter.msg import convert_msg_to_idl
    from rosidl_generator_c import generate_c
    from rosidl_generator_py import generate_py
    from rosidl_generator_type_description import generate_type_hash
    from rosidl_typesupport_fastrtps_c import generate_typesupport_fastrtps_c
    from rosidl_typesupport_introspection_c import generate_c as generate_introspection

    idl, c, introspection, py = (out / kind / package for kind in ("idl", "c", "introspection", "py"))
    messages = [path.relative_to(root) for path in sorted(root.glob("msg/*.msg"))]
    for message in messages:
        convert_msg_to_idl(root, package, message, idl / "msg")
    call = _Arguments(package, messages, dependencies, out)
    generate_type_hash(call("rosidl_generator_type_description", idl, include_paths=call.include_paths))
    generate_c(
        call("rosidl_generator_c", c, type_description_tuples=call.descriptions,
             ros_interface_files=[str(root / message) for message in messages])
    )  # fmt: skip
    generate_typesupport_fastrtps_c(call(FASTDDS, c))
    generate_introspection(call(INTROSPECTION, introspection))  # its files have the names of rosidl_generator_c's
    generate_py(call("rosidl_generator_py", py), ["rosidl_typesupport_c"])
    for generator, folder in (("rosidl_generator_c", c), (FASTDDS, c), (INTROSPECTION, introspection)):
        _write_visibility_header(generator, package, folder / "msg")
    names = "".join(f"MESSAGE({message.stem})\n" for message in messages)
    dispatch = DISPATCH.read_text().replace("@PACKAGE@", package).replace("@MESSAGES@\n", names)
    (c / "type_support.cpp").write_text(dispatch)


class _Arguments:
    """Writes a generator's argument file and returns its path."""

    def __init__(self, package: str, messages: list[Path], dependencies: list[str], out: Path) -> None:
        idl = out / "idl" / package
        self.out = out
        self.include_paths = [f"{name}:{share(name)}" for name in dependencies]
        self.descriptions = [f"{m.with_suffix('.idl')}:{idl / m.with_suffix('.json')}" for m in messages]
        self.common: dict[str, Any] = {
            "package_name": package,
            "idl_tuples": [f"{idl}:{message.with_suffix('.idl')}" for message in messages],
            "ros_interface_dependencies": [
                f"{name}:{path}" for name in dependencies for path in sorted(share(name).glob("*/*.idl"))
            ],
            "target_dependencies": [],
        }

    def __call__(self, generator: str, output: Path, **extra: Any) -> str:
        templates = str(share(generator) / "resource")
        arguments = {**self.common, "output_dir": str(output), "template_dir": templates, **extra}
        path = self.out / f"{generator}.arguments.json"
        path.write_text(json.dumps(arguments))
        return str(path)


def _write_visibility_header(generator: str, package: str, folder: Path) -> None:
    template = (share(generator) / "resource" / f"{generator}__visibility_control.h.in").read_text()
    text = template.replace("@PROJECT_NAME_UPPER@", package.upper()).replace("@PROJECT_NAME@", package)
    (folder / f"{generator}__visibility_control.h").write_text(text)


def stand_in(package: str, root: Path, dependencies: list[str]) -> dict[str, Any]:
    """Arguments of `setuptools.setup` for messages that a native ROS has and the wheels lack, from root/msg.

    Raises SystemExit where the package is there already, RosidlMissing where it cannot be built.
    """
    try:
        raise SystemExit(f"not building {package}, there is one: {share(package)}")
    except RosidlMissing:
        check(dependencies)
    out = root / "build/rosidl"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    generate(package, root, dependencies, out)
    return {
        "name": f"ff3r_{package}",
        "version": "0.1.0",
        "packages": [package, f"{package}.msg"],
        "package_dir": {package: f"build/rosidl/py/{package}"},
        "ext_modules": [extension(package, dependencies, out)],
    }


def extension(package: str, dependencies: list[str], out: Path) -> Extension:
    """The extension module that `generate` wrote the sources of."""
    import numpy

    generated = [path for kind in ("c", "introspection", "py") for path in sorted(out.glob(f"{kind}/**/*"))]
    sources = [path for path in generated if path.suffix in (".c", ".cpp")]
    includes = [out / "c", out / "introspection", Path(numpy.get_include())]
    for prefix in prefixes():  # one folder per package: include/<package>/<package>/*.h
        includes += [folder for folder in sorted((prefix / "include").iterdir()) if (folder / folder.name).is_dir()]
    kinds = ("rosidl_generator_py", FASTDDS, INTROSPECTION, "rosidl_generator_c")
    libraries = [f"{name}__{kind}" for name in dependencies for kind in kinds]
    libraries += [FASTDDS, "rosidl_typesupport_fastrtps_cpp", INTROSPECTION, "rosidl_runtime_c", "rcutils", "fastcdr"]
    return Extension(
        f"{package}.{package}_s__rosidl_typesupport_c",
        sources=[os.path.relpath(path) for path in sources],  # setuptools refuses absolute ones
        include_dirs=[str(folder) for folder in includes],
        library_dirs=[str(prefix / "lib") for prefix in prefixes()],
        libraries=libraries,
        extra_compile_args=["-O2", "-w"],
        language="c++",
    )
