"""The actor's prompt templates as files beside this module: `NAME.txt`, gaps in braces."""
