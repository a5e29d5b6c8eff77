"""Triton's kernels without a GPU: run by its interpreter, and compiled to machine code for GPUs that are elsewhere."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="triton is not installed: it is for Linux on x86-64"
)

# (kernel, pointer types besides tokens and counts, plain numbers, constants); * are tokens, # counts
_COMPILE = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from pairflow.coupling import triton_kernels

POINTERS = {"columns": "token", "states": "token", "old": "token", "new": "token", "counts": "count",
            "numbers": "*i32", "powers": "*fp64", "sums": "*fp64"}
NUMBERS = {"num_states", "num_rows", "stride", "num_chunks", "num_levels", "length"}
for token, count, chunk, bins in (("*u8", "*u8", 4096, 64), ("*i16", "*i16", 8192, 512), ("*i32", "*i16", 4096, 4)):
    constants = {"STATES": 16, "ROWS": 512, "CHUNK": chunk, "BLOCK": 1024, "BINS": bins}
    for name in ("_count_matches", "_scan", "_find", "_agreement"):
        kernel = getattr(triton_kernels, name)
        types = {}
        for argument in kernel.arg_names:
            kind = POINTERS.get(argument, "*i64")
            kind = {"token": token, "count": count}.get(kind, kind)
            types[argument] = "constexpr" if argument in constants else "i32" if argument in NUMBERS else kind
        used = {key: value for key, value in constants.items() if key in kernel.arg_names}
        ones = {key: 1 for key in ("num_states", "num_rows", "num_chunks", "length") if key in kernel.arg_names}
        # A launch makes a constant of a number that is 1.
        for capability, more in ((80, {}), (90, {}), (90, ones)):
            source = ASTSource(kernel, types | dict.fromkeys(more, "constexpr"), used | more)
            compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32))
            print(name, capability, len(compiled.asm["cubin"]) > 0)
"""


def _run(arguments: list[str], **variables: str) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TRITON_")}
    done = subprocess.run(
        [sys.executable, *arguments],
        env=environment | {"OMP_NUM_THREADS": "1"} | variables,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_in_the_interpreter():
    tests = Path(__file__).with_name("interpreted_kernels.py")
    said = _run(["-m", "pytest", "-q", "-p", "no:cacheprovider", str(tests)], TRITON_INTERPRET="1")
    assert "9 passed" in said


@pytest.mark.slow
def test_compile_for_gpus_of_two_generations(tmp_path):
    """What the interpreter lets pass and a compiler does not: types, shapes, and operations that a GPU lacks."""
    said = _run(["-c", _COMPILE], TRITON_CACHE_DIR=str(tmp_path))
    assert said.count("True") == 36
