"""The one exception that speaks to the person at the keyboard."""


class UserError(Exception):
    """A mistake in a recipe, a file or a command line.

    The message is one line: what is wrong, where (file, key, record), what to do. `training.cli` prints it without a
    traceback and exits with 2, so raise it before anything is written.
    """
