r"""Text that a model or a problem file holds, at three borders: into a record, into a prompt, before a person's eyes.

`readable` is what a record may hold, `as_text` how it is put to a model and `as_written` the way back, `visible` how a
terminal or a page shows it. All are linear in the text, and none changes a text that has nothing to hide.
"""

import re

JOINER = "\u2060"
"""Word joiner: has no width, and stands in no token of any model's vocabulary that means something to a server. What
reads answers and looks for leaks drops it (`mcts.readings`, `annotators.plain`)."""

# Control characters other than tab and line ends, halves of surrogate pairs, and what Unicode says is no character.
_NOISE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")

# Tokens that begin or end a turn, a document or a role, by what follows their first character. Words are listed as
# they are spelled: `<b>` and `[ABC]` are ordinary text. `<think>` is no such token: it is the model's own to write.
_ANGLE = "|".join(
    (
        r"[|\uff5c]",  # <|im_end|>, <|eot_id|>, and DeepSeek's in full width.
        r"/?[A-Za-z]\w*[|\uff5c]>",  # <turn|>
        r"/?(?:s|pad|unk|bos|eos|cls|sep|mask|gmask|smask|sop|eop|sot|eot|eom|eod|image|audio|video|reponame|filename)>",
        r"/?[a-z]+(?:[_:][a-z0-9]+)+>",  # <start_of_turn>, <file_sep>, <extra_id_0>, <seed:bos>
        r"(?:unused|reserved|SPECIAL_)\d+>",
        r"</?SYS>>",
    )
)
_SQUARE = "|".join(
    (
        r"[|\uff5c]",  # [|endofturn|]
        r"/?(?:INST|SYSTEM_PROMPT|TOOL_CALLS|TOOL_RESULTS|AVAILABLE_TOOLS|TOOL_CONTENT|ARGS|CALL_ID|THINK|IMG|IMG_BREAK"
        r"|IMG_END|AUDIO|BEGIN_AUDIO|TRANSCRIBE|PREFIX|MIDDLE|SUFFIX|MODEL_SETTINGS"
        r"|BOS|EOS|EOT|EOD|PAD|UNK|CLS|SEP|MASK|gMASK|sMASK)\]",
        r"e~\[",
    )
)
_CLOSING = r"~!?b[\[\]]"  # ]~b] and ]~!b[
_SPECIAL = re.compile(rf"<(?={_ANGLE})|\[(?={_SQUARE})|\](?={_CLOSING})")
_BROKEN = re.compile(rf"<{JOINER}(?={_ANGLE})|\[{JOINER}(?={_SQUARE})|\]{JOINER}(?={_CLOSING})")

# What moves a terminal's cursor or a page's writing direction, or cannot be encoded; the line end stays.
_UNSHOWN = re.compile(
    "[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ufdd0-\ufdef\ufffe\uffff"
    "\ud800-\udfff\U000e0000-\U000e007f]"
)


def readable(text: str) -> str:
    r"""A text as a record may hold it: each control character and half of a surrogate pair is U+FFFD.

    One character for one, so that `4\x002` does not become 42; an answer with U+FFFD in it is unscored.
    """
    return _NOISE.sub("\N{REPLACEMENT CHARACTER}", text)


def as_text(text: str) -> str:
    """A text as it is put to a model: no tokenizer finds a special token in it, a word joiner stands in each spelling.

    >>> as_text("<|im_end|>") == "<" + JOINER + "|im_end|>"
    True
    """
    return _SPECIAL.sub(lambda match: match[0] + JOINER, text)


def as_written(text: str) -> str:
    """The text that `as_text` was given, also where a model repeats it in what it writes."""
    return _BROKEN.sub(lambda match: match[0][0], text) if JOINER in text else text


def visible(text: str) -> str:
    r"""A text as a terminal or a page may show it: what would steer them stands there as `\x1b` or `\u202e`."""
    return _UNSHOWN.sub(_escape, text)


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    if match[0] == "\t":
        return "    "
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
