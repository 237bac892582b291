import json

import pytest

from pipelines.engines.base import Request, Sampling
from pipelines.engines.chat_templates import ChatTemplate, load_chat_template
from pipelines.engines.dialects import Dialect, word_request
from pipelines.engines.http import HttpEngine
from pipelines.engines.llama_cpp import read_chat_template
from pipelines.engines.settings import Limits
from pipelines.errors import UserError

# Of the shape that models bring with them: blocks on lines of their own, a default system turn, both kinds of end.
SOURCE = """\
{% if messages[0]['role'] != 'system' %}
{{ bos_token }}<|sys|>Be brief.<|end|>
{% endif %}
{% for message in messages %}
    {% if loop.index0 > 5 %}
        {% break %}
    {% endif %}
<|{{ message['role'] }}|>{{ message['content'] }}{{ eos_token }}
{% endfor %}
{% if add_generation_prompt %}
<|assistant|>
{% endif %}"""
BEGUN = "<s><|sys|>Be brief.<|end|>\n<|user|>Q?\n</s>\n<|assistant|>\n"


def template(**fields) -> ChatTemplate:
    return ChatTemplate(**{"source": SOURCE, "bos_token": "<s>", "eos_token": "</s>"} | fields)


def test_a_prompt_is_a_user_turn_and_the_answer_begins():
    assert template().begin("Q?\n") == BEGUN


def test_what_the_server_puts_in_front_is_left_out():
    assert template(adds_bos=True).begin("Q?\n") == BEGUN.removeprefix("<s>")


def test_a_prompt_is_no_template():
    assert "<|user|>{{ bos_token }}{% x %}</s>" in template().begin("{{ bos_token }}{% x %}")


def test_the_prefix_follows_the_template_byte_for_byte():
    dialect = Dialect(kind="vllm", style="templated", template=template())
    wish = Request(prompt="Q?\n", prefix=" Step 1: é \n", sampling=Sampling(max_tokens=4, temperature=0.0))
    worded = word_request(wish, dialect, "m")
    assert worded["prompt"] == BEGUN + " Step 1: é \n"
    assert "messages" not in worded
    assert dialect.path == "/v1/completions"


def test_a_reply_to_templated_text_can_be_held_to_a_schema_as_on_the_raw_route():
    wish = Request(prompt="Q?", json_schema='{"type":"object"}', sampling=Sampling(max_tokens=4, temperature=0.0))
    dialects = (Dialect(kind="vllm", style=style, template=template()) for style in ("raw", "templated"))
    raw, templated = (word_request(wish, dialect, "m") for dialect in dialects)
    assert raw["structured_outputs"] == templated["structured_outputs"] == {"json": {"type": "object"}}


def test_the_tag_that_trainers_look_for_is_not_seen():
    # As transformers renders it: what is set inside is not set outside.
    source = "{% set x = 1 %}{% generation %}{% set x = 2 %}{{ messages[0].content }}{{ x }}{% endgeneration %}{{ x }}"
    assert template(source=source).begin("Q?") == "Q?21"


def test_a_template_that_wants_the_date_is_told_the_same_one_every_day():
    assert template(source="{{ strftime_now('%d %b %Y') }}: {{ messages[0].content }}").begin("Q") == "26 Jul 2024: Q"


@pytest.mark.parametrize(
    "question", ["{% if strftime_now is defined %}", "{% if strftime_now %}", "{% if not strftime_now is undefined %}"]
)
def test_a_template_that_has_a_date_of_its_own_keeps_it(question):
    source = question + "{{ strftime_now('%Y') }}{% else %}long ago{% endif %}"
    assert template(source=source).begin("Q") == "long ago"


@pytest.mark.parametrize(
    "source",
    [
        "{{ raise_exception('Conversation roles must alternate') }}",
        "{% for %}",
        "{{ messages[0].nothing.more }}",
        # A sandbox: a template is a program of whoever made the model.
        "{{ messages.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages.append(1) }}",
    ],
)
def test_a_template_that_cannot_be_filled_in_is_named_with_the_remedy(source):
    with pytest.raises(UserError, match=r"^cannot fill in the model's chat template \(.*\); set engine\.style=chat$"):
        template(source=source).begin("Q?")


def folder_with(path, settings, tokenizer=None, source=None):
    (path / "tokenizer_config.json").write_text(json.dumps(settings))
    if tokenizer is not None:
        (path / "tokenizer.json").write_text(json.dumps(tokenizer))
    if source is not None:
        (path / "chat_template.jinja").write_text(source)
    return str(path)


TOKENS = {"bos_token": {"content": "<s>", "lstrip": False}, "eos_token": "</s>"}
PUTS_BOS = {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>"}}, {"Sequence": {"id": "A"}}]}
PUTS_NONE = {"type": "TemplateProcessing", "single": [{"Sequence": {"id": "A"}}]}


@pytest.mark.parametrize(
    ("settings", "tokenizer", "adds_bos"),
    [
        ({"chat_template": SOURCE}, None, False),
        ({"chat_template": [{"name": "tools", "template": "x"}, {"name": "default", "template": SOURCE}]}, None, False),
        ({"chat_template": SOURCE, "add_bos_token": True}, {"post_processor": PUTS_NONE}, True),
        ({"chat_template": SOURCE, "add_bos_token": False}, {"post_processor": PUTS_BOS}, False),
        ({"chat_template": SOURCE}, {"post_processor": PUTS_BOS}, True),
        ({"chat_template": SOURCE}, {"post_processor": PUTS_NONE}, False),
        ({"chat_template": SOURCE}, {"post_processor": None}, False),
        (
            {"chat_template": SOURCE},
            {"post_processor": {"type": "Sequence", "processors": [{"type": "ByteLevel"}, PUTS_BOS]}},
            True,
        ),
    ],
)
def test_a_template_is_read_from_the_models_folder(tmp_path, settings, tokenizer, adds_bos):
    assert load_chat_template(folder_with(tmp_path, TOKENS | settings, tokenizer)) == template(adds_bos=adds_bos)


def test_a_template_in_a_file_of_its_own_comes_first(tmp_path):
    assert load_chat_template(folder_with(tmp_path, TOKENS | {"chat_template": "old"}, source=SOURCE)) == template()


@pytest.mark.parametrize("settings", [{}, {"chat_template": [{"name": "tools", "template": "x"}]}])
def test_a_model_without_a_template_is_named_with_the_remedy(tmp_path, settings):
    with pytest.raises(UserError, match=r"needs the model's chat template; neither .* set engine\.style=chat$"):
        load_chat_template(folder_with(tmp_path, settings))


def test_a_folder_that_is_not_there_has_no_template(tmp_path):
    with pytest.raises(UserError, match="needs the model's chat template"):
        load_chat_template(str(tmp_path / "nowhere"))


def test_another_template_is_another_engine():
    def identity(style, source):
        dialect = Dialect(kind="vllm", style=style, template=template(source=source))
        return HttpEngine(urls=("http://h",), model="m", revision="r", dialect=dialect, limits=Limits()).identity

    assert identity("raw", "a") == identity("raw", "b") == "m@r/raw"
    assert len({identity("raw", "a"), identity("templated", "a"), identity("templated", "b")}) == 3


@pytest.mark.parametrize("url", ["http://127.0.0.1:9", "no url"])
def test_a_server_that_does_not_tell_its_template_is_named_with_the_remedy(url):
    with pytest.raises(UserError, match=rf"^{url} does not tell its chat template: .*; set engine\.style=raw$"):
        read_chat_template(url)
