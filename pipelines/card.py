"""The dataset card: what `load_dataset` reads, and what a person reads first."""

import jinja2

from annotators.exports import ExportSettings
from pipelines.card_data import TRAINED_ON, columns, config_yaml, front_matter, in_block, in_code, models, real_rows
from pipelines.card_paths import paths_said
from pipelines.manifest import Books
from pipelines.output import Output
from pipelines.plan import Plan
from pipelines.shards import table_files
from schemas.arrow import CONFIGS

_WHAT = {
    "sft": "verified critiques to imitate: `prompt` and `completion`, or `messages`",
    "critique_dpo": "a verified critique against a real one that failed: `prompt`, `chosen`, `rejected`",
    "step_dpo": "a right solution against a wrong one that begins with the same steps: `prompt`, `chosen`, `rejected`",
    "dpo": "answers with and without a user's feedback, in its scope and outside: `prompt`, `chosen`, `rejected`",
    "prm": "solutions with one label a step: `prompt`, `completions`, `labels`",
    "refine": "problem, first answer, critique, second answer, and the outcomes of both",
    "refine_chat": "first answer, verified critique and right second answer as turns: `prompt`, `completion`",
    "distill": "from dialogues: problem and the attempt that feedback led to, attempt and feedback; not verified",
    "rl": "`prompt`, label, first wrong step, rates and rewards: verifiable rewards for critics",
    "judge": "judgements with known truth: is it right, which of two is better, is it right after a critique",
    "trees": "every tree, node by node",
    "pairs": "wrong paths with the right ones that they part from",
    "alone": "right paths without a partner",
    "dialogues": "attempts at one problem with feedback between them, and how each ended",
    "critiques": "every critique that could be read",
    "panels": "what the critics of a path say together",
    "verified": "every critique that was tested, with each test",
    "rejections": "everything that was looked at and found unfit, with its reason",
    "failures": "everything that could not be looked at",
}

_RL = {
    "rollouts": "solutions with their outcomes and the rates of their problems: `prompt`, `solution`, `label`",
    "problem_pairs": "problems to solve, a hard one and a brittle one in each `pair`: `prompt`, `answer`",
    "claims": "what critics claim, and the solutions that they claim it of: `prompt`, `completion`, `reward`",
}
"""What stands in `rl` where it is not paths to criticise, by `export.rl`."""

_NUM_ROWS = 3
"""Rows that the card shows."""

_CARD = jinja2.Environment(keep_trailing_newline=True, undefined=jinja2.StrictUndefined, autoescape=False).from_string(
    """---
{{ front_matter }}
---

# {{ title }}

Data to train critics on. wrongturn grew trees of reasoning for {{ problems }} problems with the model {{ actor }};
where a wrong path leaves a right one, critics explained the turn; and a critique was kept only if second solutions
written with it came out right more often than with none and than with a placebo.

| config | rows | what |
|---|---|---|
{% for config, text in what.items() -%}
| `{{ config }}` | {{ rows[config] }} | {{ text }} |
{% endfor %}
```python
datasets.load_dataset("{{ folder }}", "{{ first }}")
```

Splits are by problem: {{ in_both }}. Tables without a row can be streamed (`streaming=True`); `datasets` loads
nothing in memory that is empty.
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
The rejected critiques of `critique_dpo` failed: {{ pair_reasons }}.

{% endif -%}
**Labels are estimates.** A step's value is estimated from rollouts that begin there, never from the search's visits;
every row bears the counts (`correct`, `scored`, `unscored`), and what nobody could decide is in no estimate.

- {{ paths.source }} A tree has at most {{ search.max_rollouts }} rollouts. Intervals are at level
  {{ search.level }}.
- {{ paths.known }}{{ 'Any other' if paths.known else 'A' }} wrong path's first error is located by a change-point
  posterior, with at most {{ search.max_probe_rollouts }} rollouts and until one step has probability
  {{ search.locate_confidence }}; a pair needs
  {{ pairing.min_confidence }}, and a gap between both sides that is significant at {{ pairing.alpha }} (one-sided).
- A critique's help is measured with {{ help.rollouts }} to {{ help.max_rollouts }} second solutions for each of three
  arms (with it, with a placebo, with none), tested at {{ help.alpha }}.

**Test sets.** {{ tests }}

Made by wrongturn {{ version }}, config digest `{{ digest }}`, seed {{ seed }}; `run.json` holds each shard's digest.

<details><summary>The whole config, but for the folder and the journal</summary>

{{ config }}

</details>

## Known limits

- First errors {{ paths.unknown }}come from rollouts of the actor, not from people: a step from which this actor never
  recovers counts as wrong, and an error that it always repairs does not.
- A solution counts as right where its answer is right and its value holds along its steps. A wrong step that does no
  harm can be in it.
- Critiques are written by models. That a critique helps does not make every sentence of it true.
- What helps this actor need not help another one.
- Problems that were too easy or too hard for the actor have no pairs: the rows are no random sample of the problems.
- {{ licence }}
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


def _what(settings: ExportSettings) -> dict[str, str]:
    """What is in each table."""
    what = _WHAT | {"rl": _RL.get(settings.rl, _WHAT["rl"])}
    if settings.plain_share:
        what["rl"] += "; and bare problems to solve, `task` says which"
    if settings.feedback == "both_marked":
        what["sft"] = "critiques that passed and critiques that failed, each with its mark in the `prompt`"
    return what


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
    assert _WHAT.keys() == CONFIGS.keys(), _WHAT.keys() ^ CONFIGS.keys()
    settings = plan.settings
    card = _CARD.render(
        front_matter=front_matter(output.path, settings.card, books),
        title=_as_title(settings.card.pretty_name),
        what=_what(settings.export),
        rows=books.rows,
        folder="{this folder or repository}",
        first=next((config for config in TRAINED_ON if books.rows[config]), TRAINED_ON[0]),
        in_both=_IN_BOTH[settings.hygiene.duplicates],
        written=len({path.name.partition("-")[2] for path in table_files(output.path, "rejections")}),
        num_shards=plan.num_shards,
        examples=[(config, in_block(row, "json")) for config, row in real_rows(output.path, _NUM_ROWS)],
        fields={config: in_block(columns(output.path, config), "text") for config in TRAINED_ON},
        models=_models(output),
        stages=_stages(books),
        pair_reasons=", ".join(f"{in_code(reason)} {count}" for reason, count in books.pair_reasons.items()),
        problems=books.stages[0].kept,
        actor=in_code(settings.engine.label),
        paths=paths_said(settings),
        search=settings.search,
        pairing=settings.pairing,
        help=settings.verify.help,
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
