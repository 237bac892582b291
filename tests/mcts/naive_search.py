"""The tree search written a second time, slow and obvious, without a line of `mcts`: what `tests/golden` is made with.

A golden file gives settings and a scripted policy (prefix → texts of its samples, in order); `expected` says what the
search must ask and what the tree must be after each answer. Nothing is remembered but the list of requests: whatever
is asked of the tree is counted anew from all rollouts so far.

A node is a pair (steps from the root, whether a solution ends there). Symbols of the scores: N requests with a scored
rollout that started at the node or below it, V the mean of their shares of right rollouts, N_p the parent's N. A
request in flight is a visit of value 0 to its node and all nodes above it: it counts in N, N_p and in V's denominator.
p is the share of rollouts that took this step among those that took any step from the same parent.

  greedy_value  V                                                     (MMC, arXiv 2504.11009)
  uct           V + c sqrt(2 ln N_p / N), infinite where N = 0        (Kocsis and Szepesvari 2006)
  puct          V + c p sqrt(N_p) / (1 + N)                           (Rosin 2011; arXiv 2405.00451)
  omega         alpha^(1 - MC) beta^(len / L) + c sqrt(sum N) / (1 + N)   (OmegaPRM, arXiv 2406.06592)

The first three walk from the root to the first inner node that was never asked, at each node to the child of the
highest score below which there is one; equal scores: more rollouts took the step, then it came first. `omega` takes,
of all states with 0 < MC < 1 (MC: share of the state's own scored rollouts that are right; N: how often the state was
taken), the wrong rollout of the highest score that was never taken, and looks for the first state on its way, behind
its own, from which nothing comes out right: by binary search, asking each middle state that has no rollouts yet.

`python tests/mcts/naive_search.py` writes the expected part of every golden file anew.
"""

import dataclasses
import json
import math
import re
from fractions import Fraction
from pathlib import Path

GOLDEN = Path(__file__).parents[1] / "golden"
LISTED = ("walk", "pools", "nodes")
ROOT = ((), False)


@dataclasses.dataclass
class Asked:
    """One request. `why` shows the scores by which its node was chosen."""

    node: tuple
    texts: list
    first_sample: int
    sent_after: int
    why: dict
    applied: bool = False


def split(text):
    """Steps: a line that opens with `Step i:` or `Answer:` begins one, any other line goes on with the one before."""
    steps = []
    for line in text.splitlines(keepends=True):
        if steps and not re.match(r"Step \d+:|Answer:", line):
            steps[-1] += line
        else:
            steps.append(line)
    return tuple(steps)


def tokens(text):
    return len(text.split())


def text_of(node):
    return "".join(node[0])


def parent(node):
    return (node[0][:-1], False)


def is_at_or_above(node, other):
    return node == other or (not node[1] and node[0] == other[0][: len(node[0])])


def way(start, text):
    """The nodes that a rollout from `start` goes through, `start` left out; none where nothing came."""
    steps = split(text)
    return [(start[0] + steps[:k], k == len(steps)) for k in range(1, len(steps) + 1)]


class Naive:
    def __init__(self, golden):
        self.settings = golden["settings"]
        self.policy = golden["policy"]
        self.gold = golden["gold"]
        self.asked = []
        self.taken = []
        self.pools = []
        self.snapshots = []

    # --- the tree, counted from the requests ---

    def applied(self):
        return [request for request in self.asked if request.applied]

    def nodes(self):
        """In the order in which they came."""
        ways = [way(request.node, text) for request in self.applied() for text in request.texts]
        return list(dict.fromkeys([ROOT, *(node for each in ways for node in each)]))

    def outcome(self, solution):
        answer = re.search(r"^Answer: (\S+)\n\Z", solution, re.MULTILINE)
        return "unscored" if not answer else "correct" if answer[1] == self.gold else "incorrect"

    def outcomes(self, request):
        return [self.outcome(text_of(request.node) + text) if text else "unscored" for text in request.texts]

    def direct(self, node):
        """(correct, scored, unscored) of the rollouts that started at this very node."""
        outcomes = [each for request in self.applied() if request.node == node for each in self.outcomes(request)]
        correct, unscored = outcomes.count("correct"), outcomes.count("unscored")
        return [correct, len(outcomes) - unscored, unscored]

    def values(self, node):
        """The share of right rollouts of each request at the node or below it; none where nothing was scored."""
        shares = []
        for request in self.applied():
            outcomes = [each for each in self.outcomes(request) if each != "unscored"]
            if outcomes and is_at_or_above(node, request.node):
                shares.append(Fraction(outcomes.count("correct"), len(outcomes)))
        return shares

    def in_flight(self, node):
        return sum(not request.applied and is_at_or_above(node, request.node) for request in self.asked)

    def passes(self, node):
        return sum(node in way(request.node, text) for request in self.applied() for text in request.texts)

    def children(self, node):
        return [child for child in self.nodes() if child != ROOT and parent(child) == node]

    def was_asked(self, node):
        return any(request.node == node for request in self.asked)

    def is_open(self, node):
        """Whether an inner node that was never asked is here or below."""
        return any(is_at_or_above(node, other) and not other[1] and not self.was_asked(other) for other in self.nodes())

    # --- asking ---

    def ask(self, node, num_samples, why):
        text = text_of(node)
        first = sum(len(request.texts) for request in self.asked if text_of(request.node) == text)
        texts = self.policy[text][first : first + num_samples]
        assert len(texts) == num_samples, f"the policy has {len(texts)} samples of {text!r}, {num_samples} are asked"
        self.asked.append(Asked(node, texts, first, len(self.applied()), why))

    def apply_oldest(self):
        next(request for request in self.asked if not request.applied).applied = True
        nodes = self.nodes()
        self.snapshots.append(
            [
                {
                    "step": node[0][-1] if node[0] else "",
                    "end": node[1],
                    "parent": nodes.index(parent(node)) if node[0] else -1,
                    "visits": len(self.values(node)),
                    "value_sum": float(sum(self.values(node))),
                    "direct": self.direct(node),
                }
                for node in nodes
            ]
        )

    # --- the phases ---

    def search(self):
        settings = self.settings
        self.look()
        if settings["rule"] == "omega":
            assert settings["parallel_searches"] == 1
            for _ in range(settings["max_searches"]):
                self.halve_best()
            return
        left = settings["max_searches"]
        while True:
            while left and sum(not request.applied for request in self.asked) < settings["parallel_searches"]:
                if not self.is_open(ROOT):
                    break
                node, walk = self.walk()
                self.ask(node, settings["rollouts_per_search"], {"walk": walk})
                left -= 1
            if all(request.applied for request in self.asked):
                return
            self.apply_oldest()

    def look(self):
        """Asks the problem itself until both right and wrong answers came, or often enough."""
        asked = 0
        while asked < self.settings["max_root_rollouts"]:
            wave = min(self.settings["root_rollouts"], self.settings["max_root_rollouts"] - asked)
            self.ask(ROOT, wave, {})
            self.apply_oldest()
            asked += wave
            correct, scored, _ = self.direct(ROOT)
            if 0 < correct < scored:
                return

    def walk(self):
        """The node to ask, and at each node on the way [child, score, rollouts that took it] for all open children."""
        node, levels = ROOT, []
        while self.was_asked(node):
            open_children = [child for child in self.children(node) if self.is_open(child)]
            scores = [(self.score(child), self.passes(child)) for child in open_children]
            order = self.nodes()
            levels.append([[order.index(c), shown(s), p] for c, (s, p) in zip(open_children, scores, strict=True)])
            node = open_children[scores.index(max(scores))]
        return node, levels

    def score(self, node):
        n = len(self.values(node)) + self.in_flight(node)
        n_parent = len(self.values(parent(node))) + self.in_flight(parent(node))
        v = float(sum(self.values(node))) / n if n else 0.0
        p = self.passes(node) / sum(self.passes(child) for child in self.children(parent(node)))
        c = self.settings["exploration"]
        match self.settings["rule"]:
            case "greedy_value":
                return v
            case "uct":
                return v + c * math.sqrt(2 * math.log(n_parent) / n) if n else math.inf
            case "puct":
                return v + c * p * math.sqrt(n_parent) / (1 + n)

    def halve_best(self):
        """Takes the best rollout of the pool, shown as [state, terminal, score]; some searches ask nothing new."""
        pool = [
            (self.omega_score(state, text), state, place, text)
            for state in self.nodes()
            for place, text in enumerate(self.texts_from(state))
            if 0 < self.direct(state)[0] < self.direct(state)[1]
            if self.outcome(text_of(state) + text) == "incorrect" and (state, place) not in self.taken
        ]
        if not pool:
            return
        best = max(score for score, *_ in pool)
        _, state, place, text = next(each for each in pool if each[0] == best)
        order = self.nodes()
        self.pools.append([[order.index(s), order.index(way(s, t)[-1]), shown(score)] for score, s, _, t in pool])
        self.taken.append((state, place))
        self.halve(way(state, text)[:-1])

    def halve(self, states):
        if not states:
            return
        half = len(states) // 2
        middle = states[half]
        if not self.was_asked(middle):
            self.ask(middle, self.settings["rollouts_per_search"], {"pools": self.pools})
            self.apply_oldest()
            self.pools = []
        if self.direct(middle)[0]:
            self.halve(states[half + 1 :])
        else:
            self.halve(states[:half])

    def texts_from(self, state):
        return [text for request in self.applied() if request.node == state for text in request.texts if text]

    def omega_score(self, state, text):
        omega = self.settings["omega"]
        correct, scored, _ = self.direct(state)
        visits = sum(taken == state for taken, _ in self.taken)
        return omega["alpha"] ** (1 - correct / scored) * omega["beta"] ** (
            tokens(text) / omega["length"]
        ) + self.settings["exploration"] * math.sqrt(len(self.taken)) / (1 + visits)


def shown(score):
    return "infinite" if math.isinf(score) else round(score, 6)


def expected(golden):
    """The requests that a golden file must hold, each with the nodes of the tree once it has been applied."""
    naive = Naive(golden)
    naive.search()
    return [
        {
            "prefix": text_of(request.node),
            "num_samples": len(request.texts),
            "first_sample": request.first_sample,
            "sent_after": request.sent_after,
            **request.why,
            "nodes": snapshot,
        }
        for request, snapshot in zip(naive.asked, naive.snapshots, strict=True)
    ]


def written(golden):
    """A golden file's text: one line for each setting, prefix and node."""

    def block(value, indent, depth):
        if not depth or not value or isinstance(value, str):
            return json.dumps(value, ensure_ascii=False)
        inner = "  " * (indent + 1)
        if isinstance(value, dict):
            lines = [f"{inner}{json.dumps(key)}: {block(each, indent + 1, depth - 1)}" for key, each in value.items()]
            return "{\n" + ",\n".join(lines) + "\n" + "  " * indent + "}"
        lines = [inner + block(each, indent + 1, depth - 1) for each in value]
        return "[\n" + ",\n".join(lines) + "\n" + "  " * indent + "]"

    flat = {key: block(value, 1, 1) for key, value in golden.items() if key != "requests"}
    requests = []
    for request in golden["requests"]:
        fields = [f'"{key}": {block(value, 3, key in LISTED)}' for key, value in request.items()]
        requests.append("    {\n      " + ",\n      ".join(fields) + "\n    }")
    parts = [f'  "{key}": {text}' for key, text in flat.items()]
    parts.append('  "requests": [\n' + ",\n".join(requests) + "\n  ]")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def rewrite():
    for path in sorted(GOLDEN.glob("*.json")):
        golden = json.loads(path.read_text(encoding="utf-8"))
        path.write_text(written(golden | {"requests": expected(golden)}), encoding="utf-8")


if __name__ == "__main__":
    rewrite()
