"""The one error that a person sees as a line instead of a traceback."""


class UserError(ValueError):
    """Something that whoever started the run can put right: says what was expected, what came and what to do.

    Any other exception is our own bug, and ends the run with its traceback.
    """

    exit_code = 2
    """The command's."""
