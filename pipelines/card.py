"""The dataset card: what `load_dataset` reads, and what a person reads first."""

import jinja2

from pipelines.manifest import Books
from pipelines.output import Output
from pipelines.plan import Plan
from pipelines.shards import SPLITS
from schemas.arrow import CONFIGS

_WHAT = {
    "sft": "verified critiques to imitate: `messages`",
    "critique_dpo": "a verified critique against a real one that failed: `prompt`, `chosen`, `rejected`",
    "step_dpo": "the right branch against the wrong one from the same prefix: `prompt`, `chosen`, `rejected`",
    "prm": "solutions with one label a step: `prompt`, `completions`, `labels`",
    "refine": "problem, first answer, verified critique, second answer",
    "rl": "problem, solution, label, first wrong step: verifiable rewards for critics",
    "trees": "every tree, node by node",
    "pairs": "wrong paths with the right ones that they part from",
    "alone": "right paths without a partner",
    "critiques": "every critique that could be read",
    "panels": "what the critics of a path say together",
    "verified": "every critique that was tested, with each test",
    "rejections": "everything that was looked at and found unfit, with its reason",
    "failures": "everything that could not be looked at",
}

_CARD = jinja2.Environment(keep_trailing_newline=True, undefined=jinja2.StrictUndefined, autoescape=False).from_string(
    """---
pretty_name: Critiques made by wrongturn
tags: [wrongturn, critique, preference, process-reward]
configs:
{%- for config in what %}
- config_name: {{ config }}
  data_files:
{%- for split in splits[config] %}
  - split: {{ split }}
    path: {{ config }}/{{ split }}-*.parquet
{%- endfor %}
{%- endfor %}
---

# Critiques made by wrongturn

Trees of reasoning were grown for {{ problems }} problems with `{{ model }}`; where a wrong path leaves a right one,
critics explained the turn; critiques were kept only if rollouts show that they help.

| config | rows | what |
|---|---|---|
{% for config, text in what.items() -%}
| `{{ config }}` | {{ rows[config] }} | {{ text }} |
{% endfor %}
Load one with `datasets.load_dataset("{{ '{this folder}' }}", "sft")`. Splits are by problem: no problem is in both.
Tables without a row can be streamed (`streaming=True`); `datasets` loads nothing in memory that is empty.

## How many were kept

| stage | entered | kept | rejected | failed | why |
|---|---|---|---|---|---|
{% for cells in stages -%}
| {{ cells | join(" | ") }} |
{% endfor %}
{% if pair_reasons -%}
The rejected critiques of `critique_dpo` failed: {{ pair_reasons }}.

{% endif -%}
Made by wrongturn {{ version }}, config digest `{{ digest }}`, seed {{ seed }}. The whole config is in `run.json`.
"""
)


def _splits(config: str, books: Books) -> list[str]:
    """The splits of a table that `load_dataset` is told of: those with rows, or `train` where there is no row at all.

    `datasets` reads a split without rows as a stream only; in memory it refuses with "corresponds to no data".
    """
    return [split for split in SPLITS if books.rows_by_split[f"{config}/{split}"]] or [SPLITS[0]]


def write_card(output: Output, plan: Plan, books: Books) -> None:
    """Writes README.md. Every table has its entry, also where it has no row."""
    assert _WHAT.keys() == CONFIGS.keys(), _WHAT.keys() ^ CONFIGS.keys()
    stages = [
        (
            f"{stage.stage} ({stage.element})",
            stage.entered,
            stage.kept,
            stage.rejected,
            stage.failed,
            ", ".join(f"{reason} {count}" for reason, count in stage.reasons.items()),
        )
        for stage in books.stages
    ]
    card = _CARD.render(
        what=_WHAT,
        splits={config: _splits(config, books) for config in CONFIGS},
        rows=books.rows,
        pair_reasons=", ".join(f"{reason} {count}" for reason, count in books.pair_reasons.items()),
        problems=books.stages[1].entered,
        model=plan.settings.engine.label,
        stages=stages,
        version=plan.context.version,
        digest=plan.config_digest,
        seed=plan.settings.seed,
    )
    output.write("README.md", card)
