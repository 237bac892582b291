import asyncio

import pytest

from pipelines.engines.base import Request, Sample, Sampling
from pipelines.engines.scripted import NoReply, ScriptedEngine, arithmetic, by_ending, load_rule

PROBLEM = "Problem:\nWhat is 4 + 3 - 2?\n\nSolution:\n"


def ask(engine: ScriptedEngine, **fields):
    request = Request(**{"prompt": "p", "sampling": Sampling(max_tokens=8, temperature=1.0)} | fields)
    return request, asyncio.run(engine.complete(request))


def test_a_reply_is_the_rules_text_cut_at_the_first_stop_string():
    engine = ScriptedEngine(lambda prompt, prefix, seed: "one two\n\nthree END four")
    sampling = Sampling(max_tokens=8, temperature=1.0, stop=("END", "\n\n"))
    _, reply = ask(engine, sampling=sampling)
    assert reply.samples == (Sample(text="one two", finish="stop", tokens=2),)
    assert (reply.usage.requests, reply.usage.samples, reply.usage.completion_tokens) == (1, 1, 2)


def test_each_sample_has_its_own_seed_whether_asked_alone_or_together():
    engine = ScriptedEngine(lambda prompt, prefix, seed: f"{seed}")
    request, together = ask(engine, num_samples=4)
    _, alone = ask(engine, num_samples=1, first_sample=2)
    texts = [sample.text for sample in together.samples]
    assert texts == [f"{request.sample_seed(0) + i}" for i in range(4)]
    assert alone.samples == together.samples[2:3]


def test_it_remembers_what_it_was_asked():
    engine = ScriptedEngine(lambda prompt, prefix, seed: "")
    first, _ = ask(engine, prefix="a")
    second, _ = ask(engine, prefix="b")
    assert engine.history == [first, second]


def test_a_rule_is_found_by_module_and_name():
    assert load_rule("pipelines.engines.scripted:arithmetic") is arithmetic


@pytest.mark.parametrize("name", ["", "arithmetic", "no.such.module:rule", "pipelines.engines.scripted:nothing", ":x"])
def test_a_rule_that_is_not_there_is_named(name):
    with pytest.raises(ValueError, match=rf"^engine\.rule must name a function as module:function, got '{name}': "):
        load_rule(name)


def test_a_rule_by_ending_looks_at_the_end_of_the_prompt():
    rule = by_ending({"Solution:": lambda *_: "solved", "Critique:": lambda *_: "criticised"})
    assert rule("Critique:\n...\nSolution:\n", "", 0) == "solved"
    assert rule("Solution:\n...\nCritique:", "", 0) == "criticised"
    with pytest.raises(NoReply, match=r"ends in one of 'Solution:', 'Critique:', got one that ends in 'What now\?'"):
        rule("What now?", "", 0)


def test_a_prompt_that_the_rule_has_no_reply_to_is_refused_with_what_it_expected():
    engine = ScriptedEngine(arithmetic, "sums")
    story = "Problem:\nA hen lays 16 eggs.\nHow many in 2 days?\n\nSolution:\n"
    example = f"{PROBLEM}Step 1: 4 + 3 = 7\nStep 2: 7 - 2 = 5\nAnswer: 5\n\n"
    _, reply = ask(engine, prompt=example + story, num_samples=2)
    said = "expected a problem with a sum such as 'What is 4 + 3 - 2?', got 'A hen lays 16 eggs.'"
    refused = Sample(text="", finish="stop", tokens=0, error=f"the rule sums has no reply: {said}")
    assert reply.samples == (refused, refused)
    _, reply = ask(engine, prompt="Problem:\nx\n\nStep to change:\nHence she sells = all\n\nChanged step:\n")
    assert "expected a step that ends in '= ' and a number, got 'Hence she sells = all'" in reply.samples[0].error


def test_what_goes_wrong_in_a_rule_itself_is_no_refusal():
    def broken(prompt, prefix, seed):
        raise ValueError("a bug")

    with pytest.raises(ValueError, match="a bug"):
        ask(ScriptedEngine(broken))


def test_arithmetic_goes_on_from_the_prefix_as_written():
    texts = {arithmetic(PROBLEM, "Step 1: 4 + 3 = 9\n", seed) for seed in range(30)}
    assert "Step 2: 9 - 2 = 7\nAnswer: 7\n" in texts
    assert all(text.startswith("Step 2: 9 - 2 = ") for text in texts)


def test_arithmetic_is_right_often_and_wrong_often():
    right = sum(arithmetic(PROBLEM, "", seed).endswith("Answer: 5\n") for seed in range(400))
    # Both of two steps are right with 0.65 squared = 0.42; two errors cancel with less than 0.03.
    assert 0.34 < right / 400 < 0.54


def test_arithmetic_critics_name_the_first_wrong_step():
    prompt = "Problem:\nWhat is 4 + 3 - 2?\n\nSolution:\nStep 1: 4 + 3 = 7\nStep 2: 7 - 2 = 6\nAnswer: 6\n\nCritique:\n"
    assert '"first_wrong_step":2,"verdict":"incorrect"' in arithmetic(prompt, "", 0)
    assert '"first_wrong_step":null,"verdict":"correct"' in arithmetic(prompt.replace("= 6", "= 5"), "", 0)


def test_arithmetic_puts_errors_into_steps_but_not_always():
    prompt = (
        "Problem:\nWhat is 4 + 3 - 2?\n\nStep to change:\nStep 2: 7 - 2 = 5\n\nKind of error:\nx\n\nChanged step:\n"
    )
    assert arithmetic(prompt, "", 1) == "Step 2: 7 - 2 = 6\n"
    assert arithmetic(prompt, "Step 2: ", 2) == "7 - 2 = 6\n"
    assert arithmetic(prompt, "Step 2: ", 4) == "7 - 2 = 5\n"


def test_a_reply_is_cut_after_as_many_words_as_it_may_have():
    engine = ScriptedEngine(lambda prompt, prefix, seed: " one two\nthree four\n")
    _, cut = ask(engine, sampling=Sampling(max_tokens=3, temperature=1.0))
    _, whole = ask(engine, sampling=Sampling(max_tokens=4, temperature=1.0))
    assert cut.samples == (Sample(text=" one two\nthree", finish="length", tokens=3),)
    assert whole.samples == (Sample(text=" one two\nthree four\n", finish="stop", tokens=4),)
