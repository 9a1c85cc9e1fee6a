"""The root of every error that is the user's to mend."""


class UserError(ValueError):
    """Bad input: one line that says what was expected, what came, and what to do. Exit code 2 on the command line."""


class DivergedError(UserError):
    """Training gave no model: no epoch had a finite validation metric, or what came out has no finite values."""
