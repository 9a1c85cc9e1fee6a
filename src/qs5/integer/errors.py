"""The error of an integer model that is not what it should be."""

from qs5.errors import UserError


class IntegerModelError(UserError):
    """A model, or a file of one, that breaks SPEC.md: one line with expected, got, what to do."""
