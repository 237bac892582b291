"""The dataset card: what `load_dataset` reads, and what a person reads first."""

import jinja2

from pipelines.card_claims import claims
from pipelines.card_data import TRAINED_ON, columns, config_yaml, front_matter, in_block, in_code, models, real_rows
from pipelines.card_tables import tables_said
from pipelines.manifest import Books
from pipelines.output import Output
from pipelines.plan import Plan
from pipelines.shards import table_files
from schemas.arrow import CONFIGS

_NUM_ROWS = 3
"""Rows that the card shows."""

_CARD = jinja2.Environment(keep_trailing_newline=True, undefined=jinja2.StrictUndefined, autoescape=False).from_string(
    """---
{{ front_matter }}
---

# {{ title }}

{{ claims.summary }}

| config | rows | what |
|---|---|---|
{% for config, text in what.items() -%}
| `{{ config }}` | {{ rows[config] }} | {{ text }} |
{% endfor %}
```python
import datasets

datasets.load_dataset("OWNER/NAME", "{{ first }}")  # from the Hub; or the path of the folder that this file is in
```

Splits are by problem: {{ in_both }}. Tables without a row can be streamed (`streaming=True`); `datasets` loads
nothing in memory that is empty.
{% if has_images %}
The problems have images: tables for trainers have a column `images`, which TRL takes as it is. LLaMA-Factory wants
`<image>` in the texts, which they have not, so that `dataset_info.json` names no table: it would train without them.
{% endif -%}
{% if written < num_shards %}
**Not all of it is here: {{ written }} of {{ num_shards }} shards are written.** What is there is whole for its
problems.
{% endif %}
## Rows
{% for config, row in examples %}
`{{ config }}`:

{{ row }}
{% else %}
No table for trainers has a row.
{% endfor %}
<details><summary>Columns of the tables for trainers, with their Arrow types</summary>
{% for config, fields in fields.items() %}
`{{ config }}`

{{ fields }}
{% endfor %}
</details>

## How it was made

| texts by | engine | model | revision | texts |
|---|---|---|---|---|
{% for cells in models -%}
| {{ cells | join(" | ") }} |
{% endfor %}
Everything that went into a stage and where it ended:

| stage | entered | kept | rejected | failed | why |
|---|---|---|---|---|---|
{% for cells in stages -%}
| {{ cells | join(" | ") }} |
{% endfor %}
{% if pair_reasons -%}
Rejected critiques of `critique_dpo` by the first test that they failed: {{ pair_reasons }}.

{% endif -%}
{{ claims.labels }}

{% for point in claims.how -%}
- {{ point }}
{% endfor %}
**Test sets.** {{ tests }}

Made by wrongturn {{ version }}, config digest `{{ digest }}`, seed {{ seed }}; `run.json` holds each shard's digest.

<details><summary>The whole config, but for the folder and the journal</summary>

{{ config }}

</details>

## Known limits

{% for point in claims.limits -%}
- {{ point }}
{% endfor -%}
- {{ licence }}
{% if not has_language -%}
- The language is not stated (`card.language`).
{% endif -%}
"""
)


_IN_BOTH = {
    "keep": "no problem is in both, but a question can be if two problems ask it",
    "same": "no problem is in both, and no question",
    "near": "no problem is in both, and no question, nor nearly the same one",
}
"""By `hygiene.duplicates`."""


def _tests(plan: Plan) -> str:
    hygiene = plan.settings.hygiene
    if not hygiene.test_sets:
        return (
            "None was named to be kept out: whether a problem is in a test set was not looked at (`hygiene.test_sets`)."
        )
    names = ", ".join(in_code(name.rstrip("/").rpartition("/")[2]) for name in hygiene.test_sets)
    return (
        f"Kept out are the questions of {names}: problems that ask the same up to case, punctuation and spaces, or "
        f"share {hygiene.max_shared:.0%} of the shorter question's runs of {hygiene.run_words} words with one of them. "
        "They are counted above as `contaminated`."
    )


def _licence(plan: Plan) -> str:
    name = plan.settings.card.license
    if name == "unknown":
        return (
            "No licence is stated (`card.license`): the licences of the problems and the terms of the models apply to "
            "what is made of them."
        )
    return (
        f"The licence is {in_code(name)} as whoever made the dataset states it; the licences of the problems and the "
        "terms of the models apply to what is made of them."
    )


def _stages(books: Books) -> list[tuple[str | int, ...]]:
    return [
        (
            f"{stage.stage} ({stage.element})",
            stage.entered,
            stage.kept,
            stage.rejected,
            stage.failed,
            ", ".join(f"{in_code(reason, in_table=True)} {count}" for reason, count in stage.reasons.items()),
        )
        for stage in books.stages
    ]


def _models(output: Output) -> list[tuple[str | int, ...]]:
    return [
        (*(in_code(text, in_table=True) for text in (by.role, by.engine, by.model, by.revision)), by.texts)
        for by in models(output.path)
    ]


def write_card(output: Output, plan: Plan, books: Books) -> None:
    """Writes README.md. Every table has its entry, also where it has no row."""
    settings = plan.settings
    what = tables_said(settings)
    assert what.keys() == CONFIGS.keys(), what.keys() ^ CONFIGS.keys()
    card = _CARD.render(
        front_matter=front_matter(output.path, settings.card, books),
        title=_as_title(settings.card.pretty_name),
        what={config: what[config] for config in CONFIGS},
        rows=books.rows,
        first=next((config for config in TRAINED_ON if books.rows[config]), TRAINED_ON[0]),
        in_both=_IN_BOTH[settings.hygiene.duplicates],
        written=len({path.name.partition("-")[2] for path in table_files(output.path, "rejections")}),
        num_shards=plan.num_shards,
        examples=[(config, in_block(row, "json")) for config, row in real_rows(output.path, _NUM_ROWS)],
        fields={config: in_block(columns(output.path, config), "text") for config in TRAINED_ON},
        models=_models(output),
        stages=_stages(books),
        pair_reasons=", ".join(f"{in_code(reason)} {count}" for reason, count in books.pair_reasons.items()),
        claims=claims(settings, books.stages[0].kept),
        has_images=plan.images,
        has_language=bool(settings.card.language),
        tests=_tests(plan),
        licence=_licence(plan),
        version=plan.context.version,
        digest=plan.config_digest,
        seed=settings.seed,
        config=in_block(config_yaml(settings), "yaml"),
    )
    output.write("README.md", card)


def _as_title(name: str) -> str:
    """A name as Markdown that means nothing but its characters."""
    return "".join(f"\\{char}" if char in _MARKS else char for char in name)


_MARKS = frozenset("\\`*_{}[]<>()#+-.!|~&$")
