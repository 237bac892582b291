import pytest

from pipelines.templates import load_template, shipped_templates
from schemas import Template

GAPS = frozenset({"problem"})


def test_shipped_templates_are_found_by_name():
    template = load_template("solve", key="k", gaps=GAPS)
    assert template.name == "solve"
    assert template.gaps == {"problem"}


@pytest.mark.parametrize("name", shipped_templates())
def test_every_shipped_template_has_text_and_gaps(name):
    known = {"problem", "solution", "sections", "role", "critic", "critique", "style", "debater", "feedback"}
    known |= {"first", "second", "before", "step", "error"}
    template = load_template(name, key="k", gaps=frozenset(known))
    assert template.text.strip()
    assert template.gaps


def test_a_file_of_ones_own_is_read_as_it_is(tmp_path):
    path = tmp_path / "mine.txt"
    path.write_bytes("Löse: {problem}\n\n".encode())
    template = load_template(str(path), key="actor.solve_template", gaps=GAPS)
    assert template == Template(name=str(path), text="Löse: {problem}\n\n")


def test_a_home_folder_is_understood(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "mine.txt").write_text("{problem}")
    assert load_template("~/mine.txt", key="k", gaps=GAPS).text == "{problem}"


@pytest.mark.parametrize("name", ["nope", "", "../prompts/solve", "solve.md", "__init__"])
def test_a_template_that_is_not_there_is_named_with_those_that_are(name):
    with pytest.raises(ValueError, match=r".") as caught:
        load_template(name, key="actor.solve_template", gaps=GAPS)
    assert str(caught.value) == (
        f"actor.solve_template: no prompt template {name!r}; shipped ones are {', '.join(shipped_templates())}; "
        "a file of your own must end in .txt"
    )
    assert "solve" in shipped_templates()
    assert "critique" in shipped_templates()


def test_a_file_that_is_not_there_or_a_folder_is_named(tmp_path):
    (tmp_path / "folder.txt").mkdir()
    for name in ("gone.txt", "folder.txt"):
        with pytest.raises(ValueError, match=rf"^k: no prompt template '{tmp_path}/{name}'; shipped ones are "):
            load_template(str(tmp_path / name), key="k", gaps=GAPS)


def test_a_gap_that_nobody_fills_is_named(tmp_path):
    path = tmp_path / "mine.txt"
    path.write_text("{problem} {gold} {answer}")
    with pytest.raises(ValueError, match=r".") as caught:
        load_template(str(path), key="actor.solve_template", gaps=GAPS)
    assert str(caught.value) == (
        f"actor.solve_template: template {str(path)!r} has the gaps ['answer', 'gold'], which nothing fills here; "
        "there are ['problem']"
    )
