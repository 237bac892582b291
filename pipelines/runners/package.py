"""One wheel of the wrongturn that is installed here, for workers of a cluster: they run what the submitter runs.

Whatever way it is installed, from a checkout or among the site-packages, the wheel holds what `setup.cfg` packs and
nothing else that lies beside it. It is written with the standard library: what builds wheels otherwise (`build`,
`wheel`, setuptools) is no part of an installation, and needs the sources.
"""

import base64
import csv
import functools
import hashlib
import importlib.metadata
import importlib.resources
import io
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path

PACKAGES = ("annotators", "conf", "mcts", "pipelines", "schemas")
"""What an installation consists of."""
_DATA = {
    "annotators": ("prompts/*.txt",),
    "conf": ("*.yaml", "*/*.yaml"),
    "pipelines": ("prompts/*.txt", *(f"report/{name}" for name in ("page.css", "page.html", "page.js", "vendor/*"))),
}
"""Files besides Python's, as `setup.cfg` names them."""
_TIME = (1980, 1, 1, 0, 0, 0)
"""Of every member: the earliest that the format can say, so that equal contents are equal bytes."""
_WHEEL = "Wheel-Version: 1.0\nGenerator: wrongturn\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


def make_wheel(folder: Path) -> Path:
    """Writes the wheel into a folder; the same installation gives the same bytes.

    The requirements in it are those that were recorded when wrongturn was installed here.

    Returns:
      Its path; the name is the one that PEP 427 gives it.
    """
    found = installation()
    # PEP 427: what is no letter, digit or dot would end the version where the name goes on.
    name = f"wrongturn-{re.sub(r'[^a-zA-Z0-9.+]+', '_', found.version)}"
    members = dict(_modules()) | {f"{name}.dist-info/{file}": text for file, text in _metadata(found).items()}
    record = f"{name}.dist-info/RECORD"
    path = folder / f"{name}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, content in [*sorted(members.items()), (record, _record(members, record))]:
            entry = zipfile.ZipInfo(member, _TIME)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.create_system = 3  # Unix, wherever it is made: the mode below counts only there.
            entry.external_attr = 0o100644 << 16
            archive.writestr(entry, content)
    return path


@functools.cache
def code_digest() -> str:
    """SHA-256 over all code of the packages: equal wherever the same runs, and looked at once a process.

    Settings and prompts are not in it: who starts a run reads them, and they travel with the graph.
    """
    told = hashlib.sha256()
    for name, content in sorted(_modules()):
        if name.endswith(".py"):
            told.update(f"{name} {len(content)}\n".encode() + content)
    return told.hexdigest()


def installation() -> importlib.metadata.Distribution:
    """The installation as pip knows it: a checkout that Python is started in has an egg-info that comes first."""
    found = list(importlib.metadata.distributions(name="wrongturn"))
    if not found:
        raise importlib.metadata.PackageNotFoundError("wrongturn")
    return next((each for each in found if each.read_text("METADATA")), found[0])


def _metadata(found: importlib.metadata.Distribution) -> dict[str, bytes]:
    """The files of the wheel's dist-info by name, but for RECORD."""
    texts = {
        "METADATA": found.read_text("METADATA") or found.read_text("PKG-INFO"),
        "WHEEL": _WHEEL,
        "entry_points.txt": found.read_text("entry_points.txt"),
        "top_level.txt": "".join(f"{package}\n" for package in PACKAGES),
    }
    for license_file in found.metadata.get_all("License-File") or ():
        texts[f"licenses/{license_file}"] = found.read_text(f"licenses/{license_file}")
    return {name: text.encode() for name, text in texts.items() if text is not None}


def _modules() -> Iterator[tuple[str, bytes]]:
    """Path in the wheel and content of every file of the packages."""
    for package in PACKAGES:
        root = importlib.resources.files(package)
        assert isinstance(root, Path), root  # It is only otherwise where Python runs from an archive.
        for pattern in ("**/*.py", "**/py.typed", *_DATA.get(package, ())):
            for path in root.glob(pattern):
                if path.is_file():
                    yield f"{package}/{path.relative_to(root).as_posix()}", path.read_bytes()


def _record(members: dict[str, bytes], record: str) -> bytes:
    """The list of members with their digests and sizes in bytes (PEP 376, as PEP 427 has it); its own line is bare."""
    lines = io.StringIO()
    writer = csv.writer(lines, lineterminator="\n")
    for member, content in sorted(members.items()):
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
        writer.writerow((member, f"sha256={digest}", len(content)))
    writer.writerow((record, "", ""))
    return lines.getvalue().encode()
