"""Prompt templates as files beside this module: `NAME.txt`, gaps in braces."""
