"""A finished run on the Hugging Face Hub: what goes, what is there already, and one commit that makes it so.

Large files go up before the commit. Where an upload breaks, those that have arrived stay on the Hub, and the same
command sends the others.
"""

import contextlib
import fcntl
import hashlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import msgspec
from rich.console import Console
from rich.markup import escape

from pipelines.card_data import has_credentials
from pipelines.errors import UserError
from pipelines.lease import holder_of
from pipelines.mirror import at_hand
from pipelines.output import COMPLETED, STATE
from pipelines.plan import package_version
from pipelines.shards import file_digest
from pipelines.storage import Folder, explained, is_store, open_folder
from schemas import Record, visible
from schemas.arrow import CONFIGS

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
    from huggingface_hub.hf_api import RepoFile

_BESIDE = ("dataset_info.json", "report.html", "run.json", "README.md")
"""What goes with the shards, where it is there; the card comes last, for it makes a dataset of them."""
_NEEDED = ("run.json", "README.md")
_SHARD = re.compile(rf"(?:{'|'.join(CONFIGS)})/(?:train|validation)-\d{{5}}-of-\d{{5}}\.parquet")
_FILES_IN_BATCH = 64
"""Large files that are asked about and sent together."""
_FILES_IN_COMMIT = 1000
"""The Hub takes larger ones, but may be too long about them."""
_TYPE = "dataset"


class PublishError(UserError):
    """It cannot be published; says why and what to do."""


class Parcel(Record):
    """A file that goes."""

    path: str
    """Below the output folder, and in the repository."""
    size: int
    """Bytes."""
    sha256: str


class _Manifest(msgspec.Struct):
    """The part of `run.json` that says which shards there are, and what the run was told."""

    shards: dict[str, str]
    """SHA-256 by path."""
    config: msgspec.Raw = msgspec.Raw(b"{}")


@contextlib.contextmanager
def packed(out: str, *, allow_partial: bool) -> Iterator[tuple[Path, tuple[Parcel, ...]]]:
    """The folder of a run and what of it goes: shards, card, report, `run.json`. No run works on it meanwhile.

    Raises:
      PublishError: there is no run, it has not finished (and may not be partial), or a file is not what it wrote.
    """
    _refuse_leased(open_folder(out))
    with at_hand(out) as here, _at_rest(here):
        path = here.absolute()
        if not (path / "run.json").is_file():
            raise PublishError(f"{path} holds no run.json; give the folder of a run that has ended")
        if not (path / COMPLETED).is_file() and not allow_partial:
            raise PublishError(
                f"{path} is not {COMPLETED}: shards are missing, or more failed than max_failure_share allows. Give "
                "the run's command again, or publish what there is with --allow-partial"
            )
        yield path, tuple(_parcels(path))


def _refuse_leased(folder: Folder) -> None:
    if isinstance(folder, Path):
        return
    try:
        lease = holder_of(folder / STATE)
    except OSError as error:
        raise PublishError(f"out: {explained(folder, error)}") from error
    if lease:
        raise PublishError(f"a run is working on {folder} ({lease}); wait until it has ended")


@contextlib.contextmanager
def _at_rest(path: Path) -> Iterator[None]:
    """Shares the lock that a run holds alone. A folder that was copied without its lock has no run."""
    lock = path / STATE / "lock"
    if lock.is_symlink() or not lock.is_file():
        yield
        return
    with lock.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            raise PublishError(f"a run is working on {path}; wait until it has ended") from None
        yield


def _parcels(path: Path) -> Iterator[Parcel]:
    try:
        manifest = msgspec.json.decode((path / "run.json").read_bytes(), type=_Manifest)
    except msgspec.DecodeError as error:
        raise PublishError(f"{path / 'run.json'} is damaged ({error}); give the run's command again") from None
    _refuse_secrets(path / "run.json", bytes(manifest.config).decode(errors="replace"))
    shards = manifest.shards
    for name in sorted(shards):
        if not _SHARD.fullmatch(name):
            raise PublishError(f"{path / 'run.json'} names {name!r}, which is no shard; give the run's command again")
        parcel = _parcel(path, name)
        if parcel.sha256 != shards[name]:
            raise PublishError(
                f"{path / name} is not what the run wrote (its SHA-256 is another than in run.json); give the run's "
                "command again, which writes it anew"
            )
        yield parcel
    for name in (*_BESIDE, COMPLETED):
        if name in _NEEDED or (path / name).exists():
            yield _parcel(path, name)


def _parcel(path: Path, name: str) -> Parcel:
    file = path / name
    if file.is_symlink() or not file.is_file():
        raise PublishError(f"{file} is no regular file; give the run's command again, which writes it anew")
    return Parcel(path=name, size=file.stat().st_size, sha256=file_digest(file))


def _refuse_secrets(file: Path, config: str) -> None:
    """Of the settings alone: what models wrote may hold any URL."""
    if has_credentials(config):
        raise PublishError(
            f"{file} holds a setting with a name or a password in a URL, which nobody else should read; take it out of "
            "the settings, give the run's command again (it pays for nothing twice) and publish then"
        )


class Target(Record):
    """Where it goes."""

    repo: str
    """`owner/name`."""
    is_public: bool = False
    revision: str = "main"
    """Branch; made where there is none."""


def target_of(repo: str, *, is_public: bool, revision: str) -> Target:
    """Where something is to go.

    Raises:
      PublishError: that is no name of a repository or branch.
    """
    if not re.fullmatch(r"\w[\w.\-]*/\w[\w.\-]*", repo, re.ASCII):
        raise PublishError(f"expected the repository as OWNER/NAME, got {repo!r}")
    if not re.fullmatch(r"\w[\w.\-]*(/\w[\w.\-]*)*", revision):
        raise PublishError(f"--revision: expected the name of a branch, got {revision!r}")
    return Target(repo=repo, is_public=is_public, revision=revision)


def publish(console: Console, out: str, target: Target, *, dry_run: bool, allow_partial: bool) -> None:
    """Puts a run's dataset on the Hub, or says what would go there.

    Raises:
      PublishError: see `packed`; or there is no token, no permission, no such owner, no network.
    """
    with packed(out, allow_partial=allow_partial) as (path, parcels):
        _announce(console, path, parcels, target, name=out if is_store(out) else str(path))
        if dry_run:
            console.print("Nothing was sent (--dry-run).")
            return
        url = _send(console, path, parcels, target)
    console.print(f"Published: {url}", soft_wrap=True)


def _announce(console: Console, path: Path, parcels: Sequence[Parcel], target: Target, *, name: str) -> None:
    whole = f"{len(parcels)} files, {_bytes(sum(parcel.size for parcel in parcels))}"
    kind = "public" if target.is_public else "private"
    console.print(f"{escape(name)} to {target.repo} ({kind}, revision {escape(target.revision)}): {whole}")
    for parcel in parcels:
        console.print(f"  {_bytes(parcel.size):>10}  {parcel.path}", highlight=False)
    for line in _card_head(path / "README.md"):
        console.print(f"card: {escape(visible(line))}", highlight=False, soft_wrap=True)
    for name in (parcel.path for parcel in parcels if parcel.path in _BESIDE):
        if f"{Path.home()}/" in (path / name).read_text(encoding="utf-8", errors="replace"):
            console.print(f"note: {name} names paths below {escape(str(Path.home()))}", soft_wrap=True)


def _card_head(card: Path) -> Iterator[str]:
    """What the card says that is not counted from the rows."""
    from huggingface_hub import DatasetCard

    data = DatasetCard.load(card).data
    for name in ("pretty_name", "license", "language", "tags", "size_categories"):
        value = data.get(name)
        said = ", ".join(map(str, value)) if isinstance(value, list) else value
        yield f"{name}: {f'not stated (card.{name})' if value in (None, 'unknown') else said}"


def _bytes(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def _send(console: Console, path: Path, parcels: Sequence[Parcel], target: Target) -> str:
    """Sends what the Hub lacks, takes away shards of an earlier run, and tells the dataset's address."""
    import huggingface_hub
    from huggingface_hub import errors

    if not huggingface_hub.get_token():
        raise PublishError(
            "no token for the Hugging Face Hub: set HF_TOKEN to one that may write, or log in with `hf auth login`"
        )
    if not console.is_terminal:
        huggingface_hub.utils.disable_progress_bars()  # type: ignore[attr-defined]
    api = huggingface_hub.HfApi(library_name="wrongturn", library_version=package_version())
    try:
        _open_repo(api, target)
        changes = _changes(api, path, parcels, target)
        if changes:
            _upload(console, api, changes, target)
    except UserError:
        raise
    except (errors.HTTPError, OSError, RuntimeError, ValueError) as error:  # type: ignore[attr-defined]
        # RuntimeError: an upload's thread says so, with the cause behind it. ValueError: the Hub refuses the card.
        _explain(error, target)
    if not changes:
        console.print("The Hub has all of it already.")
    return f"{api.endpoint}/datasets/{target.repo}"


def _open_repo(api: "HfApi", target: Target) -> None:
    """Finds the repository or makes it; one that is public, or holds something else, is not written to by mistake."""
    from huggingface_hub import errors

    api.whoami()
    try:
        info = api.repo_info(target.repo, repo_type=_TYPE)
    except errors.RepositoryNotFoundError:
        api.create_repo(target.repo, repo_type=_TYPE, private=not target.is_public, exist_ok=True)
    else:
        if info.private is False and not target.is_public:
            raise PublishError(f"{target.repo} is public already; say --public if everybody may read this, too")
        if info.private and target.is_public:
            raise PublishError(f"{target.repo} is private; make it public on the Hub first, or leave out --public")
    if target.revision != "main":
        api.create_branch(target.repo, repo_type=_TYPE, branch=target.revision, exist_ok=True)


def _changes(
    api: "HfApi", path: Path, parcels: Sequence[Parcel], target: Target
) -> "list[CommitOperationAdd | CommitOperationDelete]":
    """What a commit must add and take away, in the order in which it goes."""
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete
    from huggingface_hub.hf_api import RepoFile

    tree = api.list_repo_tree(target.repo, recursive=True, revision=target.revision, repo_type=_TYPE)
    there = {item.path: item for item in tree if isinstance(item, RepoFile)}
    if "README.md" in there and "run.json" not in there:
        raise PublishError(
            f"{target.repo} holds a dataset that wrongturn did not publish (a card, and no run.json); choose another "
            "name"
        )
    ours = {parcel.path for parcel in parcels}
    adds = [
        CommitOperationAdd(path_in_repo=parcel.path, path_or_fileobj=path / parcel.path)
        for parcel in parcels
        if not _is_there(path, parcel, there.get(parcel.path))
    ]
    stale = [name for name in sorted(there) if name not in ours and (_SHARD.fullmatch(name) or name == COMPLETED)]
    return [*adds, *(CommitOperationDelete(path_in_repo=name) for name in stale)]


def _is_there(path: Path, parcel: Parcel, remote: "RepoFile | None") -> bool:
    """Whether the repository has a file already: a large one by its SHA-256, a small one by Git's own digest."""
    if remote is None or remote.size != parcel.size:
        return False
    if remote.lfs is not None:
        return remote.lfs.sha256 == parcel.sha256
    content = (path / parcel.path).read_bytes()
    return remote.blob_id == hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _upload(
    console: Console, api: "HfApi", changes: "list[CommitOperationAdd | CommitOperationDelete]", target: Target
) -> None:
    from huggingface_hub import CommitOperationAdd

    adds = [change for change in changes if isinstance(change, CommitOperationAdd)]
    for start in range(0, len(adds), _FILES_IN_BATCH):
        batch = adds[start : start + _FILES_IN_BATCH]
        api.preupload_lfs_files(target.repo, batch, repo_type=_TYPE, revision=target.revision, free_memory=False)
        console.print(f"{start + len(batch)} of {len(adds)} files are up", highlight=False)
    message = f"Dataset by wrongturn {package_version()}"
    for start in range(0, len(changes), _FILES_IN_COMMIT):
        part = changes[start : start + _FILES_IN_COMMIT]
        api.create_commit(target.repo, part, commit_message=message, repo_type=_TYPE, revision=target.revision)


def _explain(error: Exception, target: Target) -> NoReturn:
    """Raises PublishError with what went wrong and what to do."""
    cause: BaseException = error
    while cause.__cause__ is not None and getattr(cause, "response", None) is None:
        cause = cause.__cause__
    status = getattr(getattr(cause, "response", None), "status_code", None)
    owner = target.repo.partition("/")[0]
    said = visible(" ".join(str(cause).split()))[:400]
    again = "what is up already stays; give the same command again to send the rest"
    if isinstance(error, RuntimeError):  # Of a large file on its way: what refuses it is the store, not the Hub.
        status = None
    match status:
        case 401:
            raise PublishError(
                f"the Hub does not accept the token ({said}); make a new one that may write and set HF_TOKEN"
            ) from error
        case 403:
            raise PublishError(
                f"the token may not write to {target.repo} ({said}); give one with write access to {owner}, or choose "
                f"an owner that is yours; {again}"
            ) from error
        case 404:
            raise PublishError(
                f"the Hub knows no {target.repo} and no {owner} that could have it ({said}); correct the name"
            ) from error
        case 400 | None if isinstance(error, ValueError):
            raise PublishError(f"the Hub refuses it: {said}") from error
        case _:
            raise PublishError(f"the upload broke off ({type(cause).__name__}: {said}); {again}") from error
