"""Errors that are the user's to mend, in words a person can act on."""

from __future__ import annotations


class UserError(Exception):
    """Say what is wrong with the user's input, where, and what to do.

    Every loader and job raises this (and nothing else) for input that cannot be used. The window shows it
    as one sentence, the command line prints it as one line and exits with 2.
    """

    def __init__(self, what: str, where: str = "", fix: str = "") -> None:
        """Keep the three parts apart, so that the window can lay them out.

        Args:
            what: What is wrong, without a full stop ("the file is truncated").
            where: The file, node, tensor or option concerned; empty when there is none.
            fix: What the person can do about it, as an imperative; empty when nothing can be done.
        """
        self.what = what
        self.where = where
        self.fix = fix
        super().__init__(self.sentence())

    def sentence(self) -> str:
        """Return the parts as one line: "where: what. fix."."""
        text = f"{self.where}: {self.what}" if self.where else self.what
        text = text.rstrip(".") + "."
        return f"{text} {self.fix.rstrip('.')}." if self.fix else text

    def __reduce__(self) -> tuple[type[UserError], tuple[str, str, str]]:
        """Make the error survive the pipe between the processes with its parts."""
        return (type(self), (self.what, self.where, self.fix))


class JobCancelled(Exception):  # noqa: N818 - a state, not a fault
    """Unwind a job that was asked to stop."""
