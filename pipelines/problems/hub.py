"""Problems in a data set of the Hugging Face Hub or in a local folder, streamed through `datasets`."""

import json
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any

from pipelines.problems.base import HubProblems, ProblemError, Row, check_columns, check_tabular, read_rows
from schemas import Problem, Rejection, visible

_SECONDS = 10.0


def read_hub(settings: HubProblems) -> Iterator[Problem | Rejection]:
    """One problem or rejection for each row of the split. A local folder needs no network.

    Raises:
      ProblemError: there is no such data set, configuration or split, no network, or no mapped column.
    """
    check_tabular(settings)
    folder = Path(settings.dataset).expanduser().absolute()
    try:
        is_local = folder.exists()
    except OSError:
        is_local = False
    if is_local:
        rows = _open_folder(folder, settings)
    else:
        _look_at_hub(folder, settings)
        rows = _load(settings.dataset, settings)
    name = visible(folder.name) if is_local else settings.dataset
    numbered = islice(
        _rows(rows, f"{name}[{settings.split}]", settings),
        settings.skip,
        None if settings.limit is None else settings.skip + settings.limit,
    )
    yield from read_rows(numbered, settings)


def _rows(rows: Iterator[dict[str, Any]], name: str, settings: HubProblems) -> Iterator[Row]:
    number = 0
    try:
        first = next(rows, None)
        if first is None:
            return
        check_columns(settings.columns, first, f"'{settings.dataset}'")
        for number, values in enumerate(chain([first], rows), 1):
            yield Row(source=name, number=number, values=values)
    except ProblemError:
        raise
    except Exception as error:
        # Any of a dozen libraries below `datasets` may give up, each with its own error.
        raise ProblemError(
            f"problems.dataset: {settings.dataset!r} cannot be read after row {number} ({_brief(error)}); start again, "
            "or take its files with problems=file, which passes over broken rows"
        ) from error


def _open_folder(folder: Path, settings: HubProblems) -> Iterator[dict[str, Any]]:
    if not folder.is_dir():
        raise ProblemError(f"problems.dataset: '{folder}' is a file; use problems=file problems.path={folder}")
    splits = folder / "dataset_dict.json"
    saved = folder
    if splits.exists():
        known = json.loads(splits.read_text(encoding="utf-8"))["splits"]
        if settings.split not in known:
            raise ProblemError(
                f"problems.split: '{folder}' has no split {settings.split!r}, only {', '.join(known)}; choose one"
            )
        saved = folder / settings.split
    if not (saved / "state.json").exists():
        return _load(str(folder), settings)
    datasets = _datasets()
    try:
        return iter(datasets.load_from_disk(str(saved)).to_iterable_dataset().decode(enable=False))
    except (OSError, ValueError) as error:
        raise ProblemError(
            f"problems.dataset: '{saved}' is no whole save_to_disk folder ({_brief(error)}); save it again"
        ) from None


def _load(name: str, settings: HubProblems) -> Iterator[dict[str, Any]]:
    datasets = _datasets()
    try:
        stream = datasets.load_dataset(
            name, settings.config, split=settings.split, revision=settings.revision, streaming=True
        )
    except Exception as error:  # noqa: BLE001 - whatever the libraries below complain with, they list what there is.
        about = {"Bad split": "split", "Unknown split": "split", "BuilderConfig": "config", "Config name": "config"}
        setting = next((name for start, name in about.items() if str(error).startswith(start)), "dataset")
        raise ProblemError(
            f"problems.{setting}: {name!r} cannot be loaded ({_brief(error)}); correct problems.{setting}"
        ) from None
    # Undecoded images are bytes; where the features are unknown there is nothing to decode.
    return iter(stream if stream.features is None else stream.decode(enable=False))


def _look_at_hub(folder: Path, settings: HubProblems) -> None:
    """One request: `datasets` alone would retry for 25 seconds before it says that there is no network."""
    import huggingface_hub
    from huggingface_hub import errors

    name = settings.dataset
    local = "or give a local folder"
    if name.startswith(("/", ".", "~")) or name.count("/") > 1:
        raise ProblemError(f"problems.dataset: no folder at '{folder}'; correct problems.dataset")
    try:
        huggingface_hub.HfApi().dataset_info(name, revision=settings.revision, timeout=_SECONDS)
    except errors.RevisionNotFoundError:
        raise ProblemError(
            f"problems.revision: {name!r} has no revision {settings.revision!r}; correct it or leave it null"
        ) from None
    except errors.GatedRepoError:
        raise ProblemError(
            f"problems.dataset: {name!r} is gated; accept its terms on the Hub and set HF_TOKEN, {local}"
        ) from None
    except (errors.RepositoryNotFoundError, errors.HFValidationError):
        raise ProblemError(
            f"problems.dataset: the Hub has no data set {name!r} (or it is private: set HF_TOKEN), and there is no "
            f"folder at '{folder}'; correct problems.dataset"
        ) from None
    except Exception as error:  # noqa: BLE001 - the HTTP library below, and with it its errors, differs from version to version.
        raise ProblemError(
            f"problems.dataset: no folder at '{folder}', and the Hub cannot be reached for {name!r} ({_brief(error)}); "
            f"check the network, {local}"
        ) from None


def _datasets() -> Any:
    try:
        import datasets
    except ImportError as error:
        raise ProblemError(f"problems.kind=hub needs datasets ({error}); pip install datasets") from None
    return datasets


def _brief(error: Exception) -> str:
    """One line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
