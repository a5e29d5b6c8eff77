"""The images of compose.yaml: ours, built from deploy/Dockerfile, and those of others or what stands in for them.

No registry is asked, unless PAIRFLOW_CONTAINERS_PULL=1: an image that is there is taken, and else a stand-in with
the same commands, variables, users and volumes is built. The base of our own is then Debian by debootstrap, with its
Python 3.11.
"""

import contextlib
import http.server
import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from .engine import Engine, UnavailableError

ROOT = Path(__file__).parents[2]
OURS = "pairflow-tests/pairflow:cpu"
_STAND_INS = Path(__file__).with_name("standins")
_BASE = "python:3.11.14-slim-bookworm"
_STAND_IN_BASE = "pairflow-tests/python:3.11"
_OTHERS = {"postgres": "postgres:17.7", "s3": "versity/versitygw:v1.8.0"}
# As in the images of Debian: what apt brings stays small.
_SMALL = {
    "etc/apt/apt.conf.d/docker-clean": 'DPkg::Post-Invoke {"rm -f /var/cache/apt/archives/*.deb";};\n'
    'Dir::Cache::pkgcache "";\nDir::Cache::srcpkgcache "";\n',
    "etc/dpkg/dpkg.cfg.d/docker": "".join(f"path-exclude /usr/share/{each}/*\n" for each in ("doc", "man", "locale")),
}
_CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
_PORT = 41_837  # always the same: an argument that differs has the layer built anew
_PIP = ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_TRUSTED_HOST")


@dataclass(frozen=True)
class Images:
    """What compose runs.

    Attributes:
        ours: the image of deploy/Dockerfile's target `cpu`.
        stand_ins: service of compose.yaml -> the image in the place of the one that is named there.
    """

    ours: str
    stand_ins: dict[str, str]


def build(engine: Engine) -> Images:
    """Builds what is not there.

    `PAIRFLOW_CONTAINERS_BASE` is the base image; pip's options are the machine's own, by pip's variables.

    Raises:
        UnavailableError: there is no base, and none can be made.
    """
    if os.environ.get("PAIRFLOW_CONTAINERS_PULL") == "1":
        for image in (_BASE, *_OTHERS.values()):
            engine.docker("pull", image)
    base = os.environ.get("PAIRFLOW_CONTAINERS_BASE") or (_BASE if engine.has_image(_BASE) else _STAND_IN_BASE)
    if base == _STAND_IN_BASE and not engine.has_image(base):
        _make_base(engine)
    with _pip() as pip:
        arguments = {"PYTHON_IMAGE": base, **pip}
        engine.build("-f", ROOT / "deploy/Dockerfile", "--target", "cpu", "-t", OURS, ROOT, arguments=arguments)
        wanted = {service: image for service, image in _OTHERS.items() if not engine.has_image(image)}
        with tempfile.TemporaryDirectory() as context:
            shutil.copytree(_STAND_INS, context, dirs_exist_ok=True)
            shutil.copy(ROOT / "constraints.txt", context)
            for service in wanted:
                name = f"pairflow-tests/{service}"
                engine.build("--target", service, "-t", name, context, arguments=arguments)
                wanted[service] = name
    return Images(OURS, wanted)


@contextlib.contextmanager
def _pip() -> Iterator[dict[str, str]]:
    """Arguments of a build with which pip finds packages as it does here; a folder of wheels is served on loopback."""
    given = {name: os.environ[name] for name in _PIP if name in os.environ}
    if "PIP_CERT" in os.environ:
        given["PIP_CERT"] = _CERTIFICATES  # which the stand-in for the base has from this machine
    folder = os.environ.get("PIP_FIND_LINKS", "")
    if not Path(folder).is_dir() or not folder:
        yield given
        return
    handler = partial(_Quiet, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", _PORT), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        # The wheels are in the place of the index that deploy/Dockerfile adds.
        links = {"PIP_FIND_LINKS": f"http://127.0.0.1:{server.server_port}/", "PIP_TRUSTED_HOST": "127.0.0.1"}
        yield {"PIP_EXTRA_INDEX_URL": "", **given, **links}
        server.shutdown()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


def _make_base(engine: Engine) -> None:
    """Debian and its Python as small as the image whose place it takes, with the certificates of this machine."""
    debootstrap = shutil.which("debootstrap", path=f"{os.environ['PATH']}:/usr/sbin")
    if debootstrap is None or os.geteuid() != 0:
        raise UnavailableError(
            f"no image {_BASE} to build from: docker pull it, or as root apt-get install debootstrap"
        )
    packages = "--include=python3,python3-venv,ca-certificates,netbase,tzdata"
    with tempfile.TemporaryDirectory(prefix="pairflow-base-", dir="/var/tmp") as folder:
        root = Path(folder) / "root"
        done = subprocess.run(
            [debootstrap, "--variant=minbase", packages, "bookworm", root], capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise UnavailableError(
                f"no image {_BASE}, and debootstrap failed: {done.stdout[-1000:]}{done.stderr[-1000:]}"
            )
        for pattern in (
            "usr/share/doc/*",
            "usr/share/man/*",
            "usr/share/locale/*",
            "var/lib/apt/lists/*",
            "var/cache/apt/*",
        ):
            for path in root.glob(pattern):
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        for name, text in _SMALL.items():
            (root / name).write_text(text)
        if Path(_CERTIFICATES).is_file():
            shutil.copy(_CERTIFICATES, root / _CERTIFICATES.lstrip("/"))
        for name in ("python", "python3"):
            (root / "usr/local/bin" / name).symlink_to("/usr/bin/python3")
        archive = Path(folder) / "root.tar"
        subprocess.run(["tar", "--create", "--file", archive, "--directory", root, "."], check=True)
        changes = [
            "--change",
            "ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "--change",
            "ENV LANG=C.UTF-8",
        ]
        engine.docker("import", *changes, archive, _STAND_IN_BASE)
