"""Takes out of an image's environment what no program of the service reads; run by the Dockerfile, with its own Python.

    python slim.py /opt/pairflow/venv

Prints what each rule freed, in MB of 10^6 bytes. A rule that finds nothing fails: a package has moved, and the rule
would rot. Symbols are taken out of libraries by binutils' `strip`, and only where what is loaded stays the same.
"""

import hashlib
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

# What goes -> patterns below site-packages; what a pattern without "tests" finds was looked up in the package's code.
RULES: dict[str, tuple[str, ...]] = {
    "tests of the packages": ("**/tests", "torch/test"),
    "headers and libraries to link with": ("torch/include", "torch/share/cmake", "pyarrow/include", "**/*.a"),
    "torch's own test programs and protoc": ("torch/bin/test_*", "torch/bin/*Test", "torch/bin/protoc*"),
    "Ray for Java, and reinforcement learning": ("ray/jars", "ray/rllib"),
    "contributed programs of RDKit": ("rdkit/Contrib",),
    "Prefect's second interface, which is off": ("prefect/server/ui-v2",),
    "Arrow's network protocol": (
        "pyarrow/libarrow_flight.so*",
        "pyarrow/libarrow_python_flight.so*",
        "pyarrow/_flight.*",
    ),
    "what editors, compilers and debuggers of pages read": (
        *("**/*.pyi", "**/*.pyx", "**/*.pxd", "**/*.c", "**/*.cpp", "**/*.h", "**/*.hpp", "**/*.map"),
    ),
    # Whose modules are then compiled by who imports them; there is no compiler for what they generate.
    "compiled modules of torch's compiler and test helpers": (
        *("torch/_inductor/**/__pycache__", "torch/testing/_internal/**/__pycache__"),
    ),
    "pip: nothing is installed into an image that runs": ("pip", "pip-*.dist-info"),
}
# Descriptions of the services of AWS: the store speaks to S3, and a key may come from the others.
AWS_SERVICES = {"s3", "sts", "sso", "sso-oidc", "signin"}
_LOAD, _TLS = 1, 7  # kinds of segments of ELF
_STRIPPED_FROM = 200_000
"""Bytes; smaller libraries are not worth a process each."""


def size(path: Path) -> int:
    """Bytes of a file or of all files of a folder; links count nothing."""
    if path.is_symlink():
        return 0
    return path.stat().st_size if path.is_file() else sum(map(size, path.iterdir()))


def remove(paths: Iterable[Path]) -> int:
    """Removes files and folders; the bytes that are free then."""
    freed = 0
    for path in paths:
        if not path.exists() and not path.is_symlink():
            continue  # it lay within one that is gone
        freed += size(path)
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    return freed


def loaded(path: Path) -> str | None:
    """A hash of what is loaded of a 64-bit ELF file: segments and where they come; None of another file."""
    data = path.read_bytes()
    if data[:6] != b"\x7fELF\x02\x01":
        return None
    table, entry, count = struct.unpack_from("<Q", data, 32)[0], *struct.unpack_from("<HH", data, 54)
    parts = hashlib.sha256(data[:40] + data[48:60])  # but for where the sections are, which the loader does not read
    # The table itself is compared number by number; it follows the header, but in some repaired files.
    first = table + count * entry if table == 64 else 64
    for number in range(count):
        kind, flags, offset, address, physical, length, memory, alignment = struct.unpack_from(
            "<II6Q", data, table + number * entry
        )
        if kind == _TLS:  # a linker may have rounded it up, as the loader does
            memory = -(-memory // max(alignment, 1)) * max(alignment, 1)
        parts.update(repr((kind, flags, offset, address, physical, length, memory, alignment)).encode())
        if kind == _LOAD:
            parts.update(data[max(offset, first) : offset + length])
    return parts.hexdigest()


def strip(path: Path) -> int:
    """Takes the symbols out of a program or library that nobody reads but a debugger; the bytes that are free then."""
    before = loaded(path) if path.stat().st_size >= _STRIPPED_FROM and not path.is_symlink() else None
    if before is None:
        return 0
    stripped = path.with_name(path.name + ".stripped")
    done = subprocess.run(["strip", "--strip-unneeded", "-o", stripped, path], capture_output=True, check=False)  # noqa: S603, S607
    # Libraries that were repaired for a wheel may come out with their segments moved, and then fail to load.
    if done.returncode != 0 or loaded(stripped) != before:
        stripped.unlink(missing_ok=True)
        return 0
    freed = path.stat().st_size - stripped.stat().st_size
    shutil.copymode(path, stripped)
    stripped.replace(path)
    return freed


def main(environment: Path) -> None:
    """Applies every rule to a virtual environment."""
    (packages,) = environment.glob("lib/python3*/site-packages")
    total = size(packages)
    print(f"{total / 1e6:8.1f} MB before")
    services = [each for each in packages.glob("botocore/data/*/") if each.name not in AWS_SERVICES]
    rules = {
        name: [each for pattern in patterns for each in packages.glob(pattern)] for name, patterns in RULES.items()
    }
    for name, found in (*rules.items(), ("other services of AWS", services)):
        if not found:
            sys.exit(f"error: nothing is left of '{name}': correct the rule, or take it out")
        print(f"{remove(found) / 1e6:8.1f} MB {name}")
    print(f"{sum(map(strip, filter(Path.is_file, packages.rglob('*')))) / 1e6:8.1f} MB symbols")
    print(f"{size(packages) / 1e6:8.1f} MB after")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
