"""What every engine must do, clause by clause, whatever is behind it. `pipelines.engines.promises` says the rest.

`test_contract.py` runs the clauses against each engine, `benchmarks/contract.py` prints a table of them.
"""

import asyncio
import contextlib
import dataclasses
import json
import math
import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from annotators.units import JUDGEMENT_SCHEMA, critique_schema, parse_critique, parse_judgement
from pipelines.engines import Endpoint, EngineUnavailable, Reply, Request, Sample, Sampling, Usage, connect
from pipelines.engines.journaled import JournaledEngine
from pipelines.engines.promises import Promises
from pipelines.errors import UserError
from pipelines.journal import Journal
from tests.engines.ports import held_port

SHOTS = """Problem:
Calculate 7 + 8 + 5.

Solution:
Step 1: 7 + 8 = 15
Step 2: 15 + 5 = 20
Answer: 20

Problem:
Calculate 3 + 4 + 2.

Solution:
Step 1: 3 + 4 = 7
Step 2: 7 + 2 = 9
Answer: 9

Problem:
Calculate 9 + 6 + 4.

Solution:
"""
FIRST_STEP = "Step 1: 9 + 6 = 15\n"
SCHEMA = json.dumps(
    {
        "type": "object",
        "properties": {"step": {"enum": [1, 2, 3]}, "flaw": {"type": "string", "maxLength": 20}},
        "required": ["step", "flaw"],
        "additionalProperties": False,
    },
    separators=(",", ":"),
)


class Flaw(msgspec.Struct, forbid_unknown_fields=True):
    """What `SCHEMA` describes."""

    step: int
    flaw: str


def spell(prompt: str, prefix: str, seed: int) -> str:
    """A scripted model that solves the last problem of `SHOTS`; only its answer is a matter of luck."""
    del prompt
    return f"Step 1: 9 + 6 = 15\nStep 2: 15 + 4 = 19\nAnswer: {19 + seed % 3}\n"[len(prefix) :]


@dataclasses.dataclass(kw_only=True)
class Subject:
    """An engine on trial."""

    endpoint: Endpoint
    prompt: str = SHOTS
    first_step: str = FIRST_STEP
    """A begun solution that ends with a line."""
    is_greedy: bool = True
    """Whether temperature 0 gives one text, however often and from wherever it is asked for."""
    reads_tokens: bool = True
    """Whether it is SmolLM2, whose tokens are known."""

    @property
    def promises(self) -> Promises:
        """What it has promised."""
        return self.endpoint.dialect.promises

    def requests_for(self, num_samples: int) -> int:
        """In how many requests so many samples, that are not greedy, are asked for."""
        wish = self.wish(num_samples=num_samples, temperature=1.0)
        return math.ceil(num_samples / self.endpoint.dialect.choices_at_once(wish))

    def ask(self, **fields: object) -> Reply:
        """One request; by default one greedy sample of up to 24 tokens, without stop strings."""
        return asyncio.run(self._ask(self.wish(**fields)))

    async def _ask(self, request: Request) -> Reply:
        engine = connect(self.endpoint)
        try:
            return await engine.complete(request)
        finally:
            await engine.close()

    def wish(self, **fields: object) -> Request:
        """The request of `ask`; sampling's fields stand among the others."""
        sampling = {"max_tokens": 24, "temperature": 0.0}
        sampling |= {name: fields.pop(name) for name in ("max_tokens", "temperature", "stop") if name in fields}
        return Request(**{"prompt": self.prompt, "sampling": Sampling(**sampling), "seed": 5} | fields)

    def text(self, **fields: object) -> str:
        """The text of one sample."""
        (sample,) = self.ask(**fields).samples
        assert not sample.error, sample.error
        return sample.text


class Contract:
    """The clauses; each takes an engine and fails where it breaks its word."""

    def test_a_continuation_extends_the_prefix_byte_for_byte(self, subject: Subject) -> None:
        """Begun where another sample stood, in the middle of a line or at its end, it goes on as that one did."""
        if not subject.is_greedy:
            pytest.skip("no two of its samples are alike")
        stop = ("\nAnswer",)
        whole = subject.text(stop=stop)
        # Cut in front of white space, where each token ends that these lines are made of.
        cuts = [i for i, char in enumerate(whole) if char in " \n" and whole[i - 1].isdigit()]
        assert len(cuts) > 3, whole
        for cut in (cuts[0], cuts[2], cuts[3]):
            rest = subject.text(stop=stop, max_tokens=12, prefix=whole[:cut])
            size = min(len(rest), len(whole) - cut)
            assert size, rest
            assert rest[:size] == whole[cut : cut + size]

    def test_after_a_whole_line_comes_the_next(self, subject: Subject) -> None:
        """Not white space, not the prefix once more, no word of greeting."""
        reply = subject.ask(prefix=subject.first_step, num_samples=4, temperature=0.3, max_tokens=6)
        begun = [sample.text[:5] for sample in reply.samples]
        assert begun.count("Step ") + begun.count("Answe") >= 3, begun
        assert not any(sample.text.startswith(subject.first_step) for sample in reply.samples)

    def test_no_template_token_stands_between_prompt_and_prefix(self, subject: Subject) -> None:
        """SmolLM2 splits digits and takes a space for one token, but for the one that stands before a sign."""
        if not subject.reads_tokens:
            pytest.skip("it has no tokenizer")
        tokens = ["Step", " ", "1", ":", " ", "9", " +", " ", "6"]
        without = subject.ask(max_tokens=1).usage.prompt_tokens
        with_prefix = subject.ask(max_tokens=1, prefix="".join(tokens)).usage.prompt_tokens
        assert with_prefix - without == len(tokens)

    def test_n_samples_are_n_and_not_one(self, subject: Subject) -> None:
        """Nine, which is more than some servers give at once."""
        reply = subject.ask(num_samples=9, temperature=1.0, max_tokens=16)
        assert len(reply.samples) == 9
        assert not any(sample.error for sample in reply.samples)
        assert len({sample.text for sample in reply.samples}) > 1

    def test_a_promised_seed_repeats(self, subject: Subject) -> None:
        """An equal request for one sample, alone at the server: several are batched as the machine finds time."""
        if not subject.promises.repeats_seed:
            pytest.skip("not promised")
        first, second = (subject.ask(temperature=1.0, num_samples=1).samples for _ in range(2))
        assert first == second

    def test_the_journal_repeats_what_was_asked(self, subject: Subject) -> None:
        """Whether a seed is kept or not."""
        with tempfile.TemporaryDirectory() as folder:
            wishes = [subject.wish(num_samples=3, temperature=1.0, max_tokens=8)] * 2
            first, second, paid = asyncio.run(_through_a_journal(subject.endpoint, wishes, Path(folder)))
        assert first == second
        assert sum(usage.samples for usage in paid) == 3

    def test_stop_strings_are_not_in_the_text(self, subject: Subject) -> None:
        """It ends in front of the first one."""
        whole = subject.text(prefix=subject.first_step, max_tokens=12)
        text = whole if subject.is_greedy else "Answer:"
        stop = text[2:4]
        (sample,) = subject.ask(prefix=subject.first_step, max_tokens=12, stop=("~~~", stop)).samples
        assert (sample.finish, stop in sample.text) == ("stop", False)
        if subject.is_greedy:
            assert sample.text == whole.partition(stop)[0]

    def test_a_sample_that_ran_out_of_tokens_says_so(self, subject: Subject) -> None:
        """And has as many as it might have."""
        (sample,) = subject.ask(max_tokens=3).samples
        assert (sample.finish, sample.tokens) == ("length", 3)
        assert sample.text

    def test_a_schema_is_kept_and_nothing_cuts_into_it(self, subject: Subject) -> None:
        """Also with a stop string that might stand between two tokens of JSON."""
        if not subject.promises.holds_to_schema:
            pytest.skip("not promised")
        reply = subject.ask(json_schema=SCHEMA, num_samples=4, max_tokens=80, temperature=0.8, stop=("\n\n", '",'))
        for sample in reply.samples:
            flaw = msgspec.json.decode(sample.text.encode(), type=Flaw)
            assert sample.finish == "stop"
            assert flaw.step in (1, 2, 3)
            assert len(flaw.flaw) <= 20

    def test_the_schemas_of_critics_and_judges_are_taken(self, subject: Subject) -> None:
        """With all that is in them: patterns, constants, tuples, alternatives."""
        if not subject.promises.holds_to_schema:
            pytest.skip("not promised")
        steps = ("Step 1: 9 + 6 = 14\n", "Step 2: 14 + 4 = 18\n", "Answer: 18\n")
        walk, free = (critique_schema(steps, form) for form in ("walk", "free"))
        critique = parse_critique(subject.text(json_schema=walk, max_tokens=250, temperature=0.5), steps)
        assert critique.units
        # A free text may be long; that it is taken and begun is enough.
        (begun,) = subject.ask(json_schema=free, max_tokens=12).samples
        assert begun.text.startswith("{"), begun
        judgement = subject.ask(json_schema=JUDGEMENT_SCHEMA, max_tokens=150, temperature=0.5).samples[0]
        assert judgement.finish == "length" or parse_judgement(judgement.text), judgement

    def test_several_greedy_samples_are_alike(self, subject: Subject) -> None:
        """A request for more than one, though one would do."""
        if not subject.is_greedy:
            pytest.skip("no two of its samples are alike")
        texts = [sample.text for sample in subject.ask(num_samples=3, max_tokens=8).samples]
        assert texts[0]
        assert texts == texts[:1] * 3

    def test_log_probabilities_come_or_are_refused(self, subject: Subject) -> None:
        """One for each token, where promised."""
        if not subject.promises.gives_logprobs:
            with pytest.raises(UserError, match="gives no log probabilities"):
                subject.ask(logprobs=True)
            return
        reply = subject.ask(logprobs=True, num_samples=2, max_tokens=6)
        for sample in reply.samples:
            assert sample.logprobs is not None
            assert len(sample.logprobs) == 6
            assert all(-20 < value <= 0 for value in sample.logprobs)
        assert subject.ask(max_tokens=6).samples[0].logprobs is None

    def test_usage_counts_every_sample(self, subject: Subject) -> None:
        """Also at servers that count one of n choices."""
        usage = subject.ask(num_samples=4, max_tokens=3, temperature=0.3).usage
        assert (usage.requests, usage.samples) == (subject.requests_for(4), 4)
        assert 6 < usage.completion_tokens <= 12  # One choice has three at most, and one may end early.
        assert (usage.prompt_tokens > 0) == (subject.endpoint.kind != "scripted")

    def test_cached_tokens_are_reported_where_promised(self, subject: Subject) -> None:
        """The second time, most of a prompt of some 120 tokens is there."""
        subject.ask(max_tokens=2)
        usage = subject.ask(max_tokens=2).usage
        if subject.promises.reports_cached_tokens:
            assert usage.prompt_tokens / 2 < usage.cached_tokens <= usage.prompt_tokens
        else:
            assert 0 <= usage.cached_tokens <= usage.prompt_tokens

    def test_a_prompt_that_is_too_long_is_refused_and_nothing_else(self, subject: Subject) -> None:
        """A sample that says so: neither an exception nor a text."""
        if not subject.reads_tokens:
            pytest.skip("no prompt is too long for it")
        reply = subject.ask(prompt="word " * 9000, num_samples=2, temperature=1.0)
        assert [(sample.text, bool(sample.error)) for sample in reply.samples] == [("", True)] * 2
        assert reply.usage == Usage(requests=subject.requests_for(2))

    def test_a_server_that_is_not_there_is_unavailable(self, subject: Subject) -> None:
        """The engine's own trouble, after as many attempts as there may be."""
        if not subject.endpoint.urls:
            pytest.skip("it has no server")
        limits = msgspec.structs.replace(subject.endpoint.limits, max_attempts=1)
        with held_port() as (_, url):
            endpoint = msgspec.structs.replace(subject.endpoint, urls=(url,), limits=limits)
            absent = dataclasses.replace(subject, endpoint=endpoint)
            with pytest.raises(EngineUnavailable) as caught:
                absent.ask()
        assert caught.value.attempts == 1


async def _through_a_journal(
    endpoint: Endpoint, wishes: list[Request], folder: Path
) -> tuple[tuple[Sample, ...], tuple[Sample, ...], list[Usage]]:
    """The samples of two requests, one after the other, and what was paid for them."""
    paid: list[Usage] = []
    engine = connect(endpoint)
    with contextlib.closing(Journal(str(folder / "journal.sqlite"))) as journal:
        model = JournaledEngine(engine, journal, lambda stage, usage, known: paid.append(usage))
        first, second = [await model.sample("ExpandTrees", wish) for wish in wishes]
        await engine.close()
    return first, second, paid


def clauses() -> Iterator[str]:
    """Names of the clauses' methods in their order."""
    return (name for name in vars(Contract) if name.startswith("test_"))
