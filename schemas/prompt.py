"""Prompt templates: files with named gaps, filled once."""

import re
from collections.abc import Mapping

from schemas.base import Record, digest

_GAP = re.compile(r"\{(\w+)\}")


class Template(Record):
    """A prompt with gaps such as `{question}`.

    Filling reads the template once: a value that itself contains `{question}` stays as it is.
    """

    name: str
    text: str

    @property
    def digest(self) -> str:
        """Digest of the text, kept as provenance."""
        return digest(self.text)

    @property
    def gaps(self) -> frozenset[str]:
        """Names of the gaps."""
        return frozenset(_GAP.findall(self.text))

    def fill(self, values: Mapping[str, str]) -> str:
        """The text with every gap filled.

        Raises:
          ValueError: a gap has no value; says which gaps there are and which values came.
        """
        missing = self.gaps - values.keys()
        if missing:
            raise ValueError(
                f"prompt template {self.name!r} needs {sorted(missing)}, got only {sorted(values)}; "
                "rename the gap or use a template meant for this stage"
            )
        return _GAP.sub(lambda gap: values[gap.group(1)], self.text)
