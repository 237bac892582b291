"""Images of problems in the report: small, drawn anew, and never what was sent."""

import base64
import io

import pytest
from PIL import Image

from pipelines.report.pictures import pictures


def picture(width, height, form="PNG"):
    encoded = io.BytesIO()
    image = Image.effect_noise((width, height), 80).convert("RGB")
    image.save(encoded, form)
    return {"bytes": encoded.getvalue(), "path": None}


def drawn(url):
    kind, _, data = url.partition(";base64,")
    assert kind == "data:image/webp"
    return Image.open(io.BytesIO(base64.b64decode(data)))


@pytest.mark.parametrize("form", ["PNG", "JPEG", "GIF", "WEBP"])
def test_a_large_image_is_drawn_small_and_keeps_its_shape(form):
    (shown,) = pictures([picture(800, 400, form)], 1_000_000)
    assert drawn(shown["src"]).size == (320, 160)
    assert shown["alt"] == "Image 1 of 1"


def test_it_is_drawn_as_small_as_it_has_to_be():
    whole = len(pictures([picture(320, 320)], 10_000_000)[0]["src"])
    (smaller,) = pictures([picture(320, 320)], whole // 2)
    assert drawn(smaller["src"]).size == (160, 160)
    (none,) = pictures([picture(320, 320)], 100)
    assert none == {"src": "", "alt": "Image 1 of 1, which cannot be shown here"}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x89PNG\r\n\x1a\n",
        b"<svg onload='alert(1)'/>",
        b"\xff\xd8\xff\xe0" + bytes(50),
        b"GIF89a\xff\xff\xff\xff",
    ],
)
def test_what_is_no_image_is_named_and_not_shown(data):
    assert pictures([{"bytes": data, "path": None}], 1_000_000)[0]["src"] == ""


def test_a_bomb_is_not_decoded():
    bomb = picture(2, 2)["bytes"]
    # The width and height of a PNG stand in bytes 16 to 23; their checksum is looked at later than they are.
    bomb = bomb[:16] + (60_000).to_bytes(4, "big") * 2 + bomb[24:]
    assert pictures([{"bytes": bomb, "path": None}], 1_000_000)[0]["src"] == ""


def test_nothing_that_was_hidden_in_a_file_gets_into_the_page():
    data = picture(10, 10)["bytes"] + b"<script>alert(1)</script>"
    (shown,) = pictures([{"bytes": data, "path": None}], 1_000_000)
    assert b"script" not in base64.b64decode(shown["src"].partition(",")[2])


def test_more_than_four_are_counted():
    shown = pictures([picture(10, 10)] * 6, 1_000_000)
    assert [image["alt"] for image in shown] == [f"Image {i} of 6" for i in range(1, 5)]
    assert pictures([], 1_000_000) == []
