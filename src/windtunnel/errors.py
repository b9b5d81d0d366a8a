"""The two ways in which something goes wrong."""


class InputError(ValueError):
    """What was asked cannot be: names the field, its value and what is allowed. The command line exits with 2."""


class WorkError(RuntimeError):
    """Work that had begun could not be finished; the last good state is kept. The command line exits with 1."""
