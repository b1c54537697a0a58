"""Every way a job can end badly, one class per exit code."""

import re


class GatehouseError(Exception):
    """Base of all errors a user can cause or meet; its message is the one line they read.

    A message names the file, the line or key, what was found and what to do.
    """

    exit_code = 2


class ConfigError(GatehouseError):
    """A declared file, a data file or an argument is wrong (exit code 2)."""

    exit_code = 2


class GateFailed(GatehouseError):
    """A gate says no: a validation rule or an evaluation gate failed (exit code 3)."""

    exit_code = 3


class NotEnoughEvidence(GatehouseError):
    """Nothing is wrong, and nothing is proven: a person has to decide (exit code 4)."""

    exit_code = 4


class ServiceError(GatehouseError):
    """Something outside failed: network, disk, endpoint, registry (exit code 5)."""

    exit_code = 5


def one_line(text: str, most: int = 600) -> str:
    r"""Make hostile text fit for a terminal or a log: one line, nothing invisible, not endless.

    A line break in a key could otherwise forge a log line, or a command to GitHub's runner (`::set-env`).

    Args:
        text: Any text; may hold lone surrogates.
        most: Longest result, in characters.

    Returns:
        The text with every character that cannot be seen written as an escape such as `\n` or `\u202e`; likewise what
        a runner would take for its own order: `::` at the start, `##[` anywhere.
    """
    text = text.replace("##[", "#\\x23[")  # an order to GitHub's runner wherever in a line it stands
    cut = text if len(text) <= most else f"{text[: most - 3]}..."
    seen = "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in cut)
    return re.sub(r"^(\s*):(?=:)", r"\1\\x3a", seen)
