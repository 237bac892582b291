"""Images in problem files: what a row may hold, and what it must not reach."""

import base64
import io
import json
from pathlib import Path

import datasets
import pytest
from PIL import Image as Pillow

from pipelines.problems import Columns, FileProblems, ProblemError, read_problems
from pipelines.problems.images import ImageError, read_images
from schemas import Problem, Rejection, media_type_of


def packed(kind: str, colour: str = "red") -> bytes:
    file = io.BytesIO()
    Pillow.new("RGB", (4, 3), colour).save(file, kind)
    return file.getvalue()


PNG = packed("PNG")


def read(folder: Path, *values, **settings) -> list[Problem | Rejection]:
    path = folder / "problems.jsonl"
    rows = [{"question": f"How many? ({i})", "answer": i, "images": value} for i, value in enumerate(values)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return list(read_problems(FileProblems(path=str(path), columns=Columns(images="images"), **settings)))


@pytest.mark.parametrize(
    ("kind", "media_type"),
    [("PNG", "image/png"), ("JPEG", "image/jpeg"), ("GIF", "image/gif"), ("WEBP", "image/webp"), ("BMP", None)],
)
def test_media_types_of_real_files(kind, media_type):
    assert media_type_of(packed(kind)) == media_type


def test_json_lines_with_paths_data_urls_and_base64(tmp_path):
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.png").write_bytes(PNG)
    coded = base64.b64encode(PNG).decode()
    values = ["pictures/a.png", ["pictures/a.png", "pictures/../pictures/a.png"], f"data:image/x;base64,{coded}", coded]
    problems = read(tmp_path, *values)
    assert [[image.bytes for image in problem.images] for problem in problems] == [[PNG], [PNG, PNG], [PNG], [PNG]]
    assert {image.media_type for problem in problems for image in problem.images} == {"image/png"}


@pytest.mark.parametrize("way", ["up", "absolute", "link", "folder_link", "loop", "folder"])
def test_no_row_reaches_out_of_its_folder(tmp_path, way):
    inside = tmp_path / "inside"
    inside.mkdir()
    (tmp_path / "secret.png").write_bytes(PNG)
    (inside / "link.png").symlink_to(tmp_path / "secret.png")
    (inside / "out").symlink_to(tmp_path)
    (inside / "loop.png").symlink_to(inside / "loop.png")
    value = {
        "up": "../secret.png",
        "absolute": str(tmp_path / "secret.png"),
        "link": "link.png",
        "folder_link": "out/secret.png",
        "loop": "loop.png",
        "folder": ".",
    }[way]
    (rejection,) = read(inside, value)
    assert isinstance(rejection, Rejection)
    assert rejection.reason == "bad_image"
    assert "a path beside the file" in rejection.detail


def test_a_link_within_the_folder_is_followed(tmp_path):
    (tmp_path / "a.png").write_bytes(PNG)
    (tmp_path / "b.png").symlink_to(tmp_path / "a.png")
    (problem,) = read(tmp_path, "b.png")
    assert problem.images[0].bytes == PNG


@pytest.mark.parametrize("as_path", [True, False])
def test_an_image_may_be_so_large_and_no_larger(tmp_path, as_path):
    (tmp_path / "a.png").write_bytes(PNG)
    value = "a.png" if as_path else base64.b64encode(PNG).decode()
    (problem,) = read(tmp_path, value, max_image_bytes=len(PNG))
    assert problem.images[0].bytes == PNG
    (rejection,) = read(tmp_path, value, max_image_bytes=len(PNG) - 1)
    assert rejection.reason == "bad_image"
    assert f"expected at most {len(PNG) - 1} (problems.max_image_bytes)" in rejection.detail


def test_a_size_of_zero_is_refused(tmp_path):
    with pytest.raises(ProblemError, match=r"problems\.max_image_bytes: need a number >= 1, got 0"):
        read(tmp_path, None, max_image_bytes=0)


def test_the_same_words_about_another_picture_are_another_problem(tmp_path):
    (tmp_path / "a.png").write_bytes(PNG)
    (tmp_path / "b.png").write_bytes(packed("PNG", "blue"))
    path = tmp_path / "problems.jsonl"
    rows = [{"question": "Which colour?", "answer": 1, "images": name} for name in ("a.png", "b.png", "a.png")]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    first, second, again = read_problems(FileProblems(path=str(path), columns=Columns(images="images")))
    assert first.id != second.id
    assert again.reason == "duplicate_id"


def test_parquet_with_image_features(tmp_path):
    rows = {"question": ["a?", "b?"], "answer": ["1", "2"], "pictures": [[Pillow.new("RGB", (2, 2))], []]}
    features = datasets.Features(
        {
            "question": datasets.Value("string"),
            "answer": datasets.Value("string"),
            "pictures": datasets.List(datasets.Image()),
        }
    )
    path = tmp_path / "problems.parquet"
    datasets.Dataset.from_dict(rows, features=features).to_parquet(str(path))
    first, second = read_problems(FileProblems(path=str(path), columns=Columns(images="pictures")))
    assert first.images[0].media_type == "image/png"
    assert Pillow.open(io.BytesIO(first.images[0].bytes)).size == (2, 2)
    assert second.images == ()


@pytest.mark.parametrize("value", ["abcdefghijklmnop", "A" * 5000, "gone.png", "\0", 7])
def test_what_is_no_image_is_told(value, tmp_path):
    with pytest.raises(ImageError, match="'images'"):
        read_images(value, tmp_path, "images", 10**6)
