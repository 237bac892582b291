"""Which text of a solution is its program."""

import textwrap
import time

import pytest

from mcts import answers

DEFINITION = "def f():\n    return 1"


@pytest.mark.parametrize(
    ("solution", "found"),
    [
        (f"```python\n{DEFINITION}\n```", DEFINITION),
        (f"Here:\n```py\n{DEFINITION}\n```\nDone.", DEFINITION),
        (f"```Python3\n{DEFINITION}\n```", DEFINITION),
        (f"```\n{DEFINITION}\n```", DEFINITION),
        (f"Answer: ```python\n{DEFINITION}\n```", DEFINITION),
        (f"````\n{DEFINITION}\n````", DEFINITION),
        (f"1. So:\n   ```python\n{textwrap.indent(DEFINITION, '   ')}\n   ```", DEFINITION),
        ("```python\nf = 0\n```\n```python\ng = 1\n```", "g = 1"),
        (f"```python\ndef f(): pass\n```\nBetter:\n```python\n{DEFINITION}\n```", DEFINITION),
        # What only uses the program, or what it prints, is not the program.
        (f"```python\n{DEFINITION}\n```\nFor example:\n```python\nprint(f())\n```\nprints\n```\n1\n```", DEFINITION),
        (f"```python\n{DEFINITION}\n```\n```bash\npython f.py\n```", DEFINITION),
        ("```python\nf = lambda x: x\n```\n```python\nf(1)\n```", "f = lambda x: x"),
        ("```js\nfunction f() {}\n```", None),
        # A fence inside a longer one belongs to the text; so does one that names a language while another is open.
        ("````python\n'''\n```\n'''\n````", "'''\n```\n'''"),
        # Cut by the length limit.
        (f"```python\n{DEFINITION}", None),
        (f"```python\n{DEFINITION}\n```\nNow better:\n```python\ndef f(", None),
        ("```python\n```", None),
        ("```python\n\n   \n```", None),
        (f"Answer: {DEFINITION}", DEFINITION),
        (f"Answer:\n{DEFINITION}", DEFINITION),
        (f"Answer: def g(): pass\nAnswer: {DEFINITION}", DEFINITION),
        (f"Answer:\nimport math\n\n{DEFINITION}\n\nThis works because 1 is 1.", f"import math\n\n{DEFINITION}"),
        ("Answer:\nfrom math import sqrt as f", "from math import sqrt as f"),
        ("Answer: 42", None),
        ("Answer: I cannot do it", None),
        ("def f(): return 1", None),
        ("", None),
    ],
)
def test_program_of_a_solution(solution, found):
    assert answers.find_answer(solution, "code") == found


@pytest.mark.parametrize(
    "text",
    ["```" + " " * 150_000 + "!", "`" * 150_000 + "!", "\n" * 150_000, "Answer:" + " \n" * 70_000, "```\n" * 49_999],
)
def test_finding_is_linear_in_the_text(text):
    began = time.process_time()
    answers.find_answer(text, "code")
    assert time.process_time() - began < 1.0  # Quadratic work on this would take minutes.
