"""The command line as a whole."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize("arguments", [["--help"], *([name, "--help"] for name in ("pair", "study", "sample", "up"))])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys; sys.argv = ['pairflow', *sys.argv[1:]]\n"
        "from flows.command.app import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "heavy = {'prefect', 'ray', 'torch', 'mlflow', 'numba', 'matplotlib', 'zarr', 'pyarrow', 'numpy'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    assert done.stdout.rstrip().endswith("[]")
    assert "Usage" in done.stdout
