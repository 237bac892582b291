"""What goes over the wire while a tree grows: a child's request is its parent's text and a leading part of an answer.

The stage's own handler asks a server on loopback that notes every request. The server writes its texts from pieces that
are steps by construction (`STEPS`, cut by hand), with whatever a text may hold that something on the way could change:
other scripts, trailing white space, carriage returns, steps that begin with spaces.
"""

import asyncio
import contextlib
import functools
import json
import random
import tempfile
from collections import Counter, defaultdict
from pathlib import Path

import pytest
from aiohttp import web

from mcts.pairing import PairSettings
from mcts.settings import OmegaConstants, SearchSettings
from pipelines.engines import Endpoint
from pipelines.engines.dialects import Dialect
from pipelines.engines.settings import Limits
from pipelines.expand_trees import ExpandTrees
from pipelines.settings import ActorSettings
from pipelines.worker import WorkerSpec, acquire, release
from schemas import Problem, Template

FOUR = "\N{MATHEMATICAL DOUBLE-STRUCK DIGIT FOUR}"  # four bytes, and a digit
QUESTION = f"Was ist 4 + 4? \r\n  « {FOUR} √ » \t"
PROBLEM = Problem(id="p1", source="test", domain="exact", question=QUESTION, answer="8")
TEMPLATE = Template(name="t", text="Löse:\r\n{problem}\n\nLösung: \n")
PROMPT = f"Löse:\r\n{QUESTION}\n\nLösung: \n"

STEPS = {
    "marker": {
        "first": ["  Also, naïve:\r\n"],
        "inner": [
            ["Step 1: été ✓ \r\n"],
            [f"Step 2: {FOUR} + 4 \n\n  und 数 \t\n", "Step 3:  \n\n"],
            ["Step 12: a\u2028b \n"],
        ],
        "last": ["Answer: 8\r\n", "Answer: 8", "Answer: 7  \n", "Step 4: ?\n I give up. "],
        "space": ["\n\n", " \t"],
    },
    "blank_line": {
        "first": ["  Also, naïve:\r\n\r\n \n\n"],
        "inner": [
            ["  été ✓\r\n noch \n\n"],
            [f"Step 1: {FOUR} \r\n\r\n + 4 \n\n\n", " \t数 \n\n"],
            ["\u3000a\u2028b\n\n"],
        ],
        "last": ["Answer: 8\r\n", " und\nAnswer: 8 \n\n", "Answer: 7  ", "I give up. \n"],
        "space": ["\n\n", "  \n", " \t"],
    },
    # Three tokens each, or fewer at the end of a line: words of up to eight letters, up to three digits, or signs, with
    # the white space before them.
    "tokens": {
        "first": [" naïve, ✓\n"],
        "inner": [[f"  été {FOUR}\r\n"], [" so ganz verstehe", "n\u2028wir\u3000数 \n"], [" 12345.\n"], ["\tund\n\n"]],
        "last": ["Answer: 8", "Answer: 8 \r\n", "Answer: 7\n", " give up."],
        "space": [" \r\n", "\n\n", "\t"],
    },
}
"""Steps of each rule, cut by hand: any of `inner` (runs that stay together) or `last` may follow any other or one of
`first`. White space of `space` before a text belongs to its first step."""

WIRES = {
    # name: (dialect, whether the server repeats the begun turn, as llama.cpp's chat route does)
    "raw": (Dialect(kind="vllm", style="raw"), False),
    "raw-split": (Dialect(kind="llama_cpp", style="raw", max_choices=3), False),
    "chat": (Dialect(kind="vllm", style="chat"), False),
    "chat-repeats": (Dialect(kind="openai", style="chat"), True),
}

SEARCH = {
    "step_tokens": 3,
    "root_rollouts": 8,
    "max_searches": 8,
    "rollouts_per_search": 4,
    "parallel_searches": 3,
    "easy_above": 1.0,
    "hopeless_below": 0.0,
    "max_probe_rollouts": 20,
    "max_rollouts": 110,
}


def write(rule, text, seed):
    """The steps of one sample: none in one of twelve; what began well ends well more often."""
    rng = random.Random(f"{seed}/{text}")
    pool = STEPS[rule]
    if rng.random() < 1 / 12:
        return []
    steps = rng.choice([[], pool["first"]]) if text == PROMPT else []
    steps = [*steps, *(step for _ in range(rng.randrange(4)) for step in rng.choice(pool["inner"]))]
    begun_well = "été" in (text.removeprefix(PROMPT) or "".join(steps))
    steps += rng.choices(pool["last"], [4, 4, 1, 1] if begun_well else [1, 1, 4, 1])
    if rng.random() < 0.3:
        steps[0] = rng.choice(pool["space"]) + steps[0]
    return steps


class Recorder:
    """Answers both routes; notes for each request its full text, first seed, the steps of its answers and their cost.

    A sample costs a token for each character and one for its end, so that its share of the request's is known; where
    the server counts one choice only, that is the mean of all.
    """

    def __init__(self, dialect, repeats, write):
        self._dialect, self._repeats, self._write = dialect, repeats, write
        self.requests = []
        """(full text, seed, one tuple of steps for each sample)."""
        self.counted = 0
        """Tokens reported, all choices counted."""

    def application(self):
        app = web.Application()
        app.router.add_post("/v1/completions", self._raw)
        app.router.add_post("/v1/chat/completions", self._chat)
        return app

    async def _raw(self, request):
        body = json.loads(await request.read())
        assert "messages" not in body
        texts, usage = self._answer(body["prompt"], body)
        choices = [{"index": i, "text": text, "finish_reason": "stop"} for i, text in enumerate(texts)]
        return web.json_response({"choices": choices[::-1], "usage": usage})

    async def _chat(self, request):
        body = json.loads(await request.read())
        user, *begun = body["messages"]
        assert (user["role"], user["content"]) == ("user", PROMPT)
        prefix = begun[0]["content"] if begun else ""
        if begun:
            assert [turn["role"] for turn in begun] == ["assistant"]
            assert (body["continue_final_message"], body["add_generation_prompt"]) == (True, False)
        texts, usage = self._answer(PROMPT + prefix, body)
        repeated = prefix if self._repeats else ""
        choices = [{"index": i, "message": {"content": repeated + text}} for i, text in enumerate(texts)]
        return web.json_response({"choices": choices[::-1], "usage": usage})

    def _answer(self, text, body):
        samples = [tuple(self._write(text, body["seed"] + i)) for i in range(body["n"])]
        self.requests.append((text, body["seed"], samples))
        texts = ["".join(steps) for steps in samples]
        cost = sum(len(text) + 1 for text in texts)
        if not self._dialect.promises.counts_all_choices:
            cost = cost // len(texts)
            self.counted += cost * len(texts)
        else:
            self.counted += cost
        return texts, {"completion_tokens": cost}

    @property
    def counts_every_choice(self):
        return self._dialect.promises.counts_all_choices

    @property
    def rollouts(self):
        """(text that was continued, steps, tokens) of every sample."""
        return [(text, steps, len("".join(steps)) + 1) for text, _, samples in self.requests for steps in samples]


@contextlib.asynccontextmanager
async def listening(recorder):
    runner = web.AppRunner(recorder.application(), shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def expand(wire, write, folder, **search):
    """(tree, recorder) of one problem that went through the stage's handler."""
    dialect, repeats = WIRES[wire]
    recorder = Recorder(dialect, repeats, write)
    stage_settings = {
        "actor": ActorSettings(),
        "search": SearchSettings(**SEARCH | search),
        "pairing": PairSettings(),
        "template": TEMPLATE,
        "seed": 5,
    }

    async def work():
        async with listening(recorder) as url:
            endpoint = Endpoint(
                kind=dialect.kind, urls=(url,), model="m", revision="r", dialect=dialect, limits=Limits(max_attempts=1)
            )
            spec = WorkerSpec(
                endpoints=(("", endpoint),),
                journal=str(Path(folder) / "journal.sqlite"),
                checker_processes=1,
                checker_cpu_secs=1.0,
                max_in_flight=4,
            )
            worker = acquire(spec)
            try:
                # What Beam would call with the same worker and element; see `pipelines.stage`.
                (tree,) = await asyncio.wrap_future(
                    worker.submit(ExpandTrees(spec, **stage_settings)._expand(worker, PROBLEM))
                )
            finally:
                await asyncio.to_thread(release, spec)
        return tree

    return asyncio.run(work()), recorder


@functools.cache
def grown(wire, rule):
    with tempfile.TemporaryDirectory() as folder:
        return expand(wire, functools.partial(write, rule), folder, step_rule=rule)


every_tree = pytest.mark.parametrize(("wire", "rule"), [(wire, rule) for rule in STEPS for wire in WIRES])


def full_text(tree, node):
    return PROMPT + "".join(tree.steps(node))


@every_tree
def test_a_request_is_an_earlier_ones_text_and_an_answers_first_steps(wire, rule):
    _, recorder = grown(wire, rule)
    known = {PROMPT}
    for text, _, samples in recorder.requests:
        assert text in known
        known |= {text + "".join(steps[:count]) for steps in samples for count in range(1, len(steps))}


@every_tree
def test_paths_are_what_was_sent_and_what_came_byte_for_byte(wire, rule):
    tree, recorder = grown(wire, rule)
    came = {text + "".join(steps) for text, steps, _ in recorder.rollouts if steps}
    assert {full_text(tree, leaf).encode() for leaf in tree.terminals()} == {text.encode() for text in came}
    cuts = {text + "".join(steps[:count]) for text, steps, _ in recorder.rollouts for count in range(1, len(steps))}
    inner = [i for i, node in enumerate(tree.nodes) if node.kind == "step"]
    assert {full_text(tree, i).encode() for i in inner} == {text.encode() for text in cuts}
    asked = {full_text(tree, i) for i, node in enumerate(tree.nodes) if node.direct.scored + node.direct.unscored}
    assert asked == {text for text, *_ in recorder.requests}


@every_tree
def test_every_answer_hangs_below_the_text_it_continued_step_by_step(wire, rule):
    tree, recorder = grown(wire, rule)
    below = {(full_text(tree, 0), ())}
    for leaf in tree.terminals():
        path = (0, *tree.path(leaf))
        below |= {(full_text(tree, i), tree.steps(leaf)[depth:]) for depth, i in enumerate(path)}
    assert {(text, steps) for text, steps, _ in recorder.rollouts if steps} <= below


@every_tree
def test_no_token_is_lost(wire, rule):
    tree, recorder = grown(wire, rule)
    assert tree.completion_tokens == recorder.counted
    assert tree.rollouts == len(recorder.rollouts)
    if recorder.counts_every_choice:
        leaves = {full_text(tree, leaf) for leaf in tree.terminals()}
        in_tree = sum(cost for text, steps, cost in recorder.rollouts if text + "".join(steps) in leaves)
        assert in_tree + tree.dropped_tokens == recorder.counted
        assert tree.dropped_tokens == sum(not steps for _, steps, _ in recorder.rollouts) > 0


@every_tree
def test_every_sample_of_a_text_has_a_seed_of_its_own(wire, rule):
    _, recorder = grown(wire, rule)
    seeds = defaultdict(list)
    for text, first, samples in recorder.requests:
        seeds[text] += range(first, first + len(samples))
    for numbers in seeds.values():
        assert sorted(numbers) == list(range(min(numbers), min(numbers) + len(numbers)))


@pytest.mark.parametrize("rule", STEPS)
def test_a_tree_is_the_same_over_every_wire(rule):
    trees = [grown(wire, rule)[0] for wire in WIRES]
    assert all(tree.nodes == trees[0].nodes for tree in trees)


@every_tree
def test_all_that_could_be_changed_on_the_way_went_over_it(wire, rule):
    """What makes the tests above ones that can fail."""
    tree, recorder = grown(wire, rule)
    asked = [text.removeprefix(PROMPT) for text, *_ in recorder.requests]
    assert len(set(asked)) >= 12
    assert max(Counter(asked).values()) >= 2, "some text was continued by several requests"
    assert max(node.depth for node in tree.nodes if node.direct.scored) >= 3
    everything = "".join(asked)
    assert all(hard in everything for hard in ("naïve", "été", "✓", FOUR, "数", "\r\n", "\u2028"))
    # Cut by tokens, white space stands at the beginning of the next step.
    assert rule == "tokens" or any(text.endswith((" \r\n", " \n\n")) for text in asked)
    assert any(text != text.lstrip() for text in asked)
    steps = [node.step for node in tree.nodes]
    assert any(step != step.lstrip() for step in steps)
    assert any(step != step.rstrip() for step in steps)
    if rule == "tokens":
        assert any(text.endswith("verstehe") for text in asked), "a request that ends within a word"
    merged = sum(len(steps) for _, steps, _ in recorder.rollouts) - (len(tree.nodes) - 1)
    assert merged > 0, "equal steps became one node"


LONG, SHORT = "Step 1: long" + " and long" * 200 + "\n", "Step 1: short\n"


@pytest.mark.parametrize("wire", ["raw", "chat"])
def test_omega_halves_the_shorter_of_two_wrong_rollouts(wire, tmp_path):
    samples = iter([["Step 1: a\n", "Answer: 8\n"], [LONG, "Answer: 7\n"], [SHORT, "Answer: 7\n"]])

    def uneven(text, seed):
        return next(samples) if text == PROMPT else ["Answer: 7\n"]

    alone = {"max_searches": 1, "max_located": 0, "max_confirm_rollouts": 0, "root_rollouts": 3}
    _, recorder = expand(wire, uneven, tmp_path, rule="omega", omega=OmegaConstants(length=20), **alone)
    assert [text for text, *_ in recorder.requests] == [PROMPT, PROMPT + SHORT]
