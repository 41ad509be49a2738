"""Prints the table of the message's life for ARCHITECTURE.md, from `rqcore.lifecycle.TRANSITIONS`.

A test holds the text between the two markers there to it. ``python scripts/lifecycle_table.py``
prints what belongs between them.
"""

from __future__ import annotations

from rqcore.lifecycle import TRANSITIONS

BEGIN = "<!-- lifecycle table: scripts/lifecycle_table.py -->"
END = "<!-- end of lifecycle table -->"


def table() -> str:
    """The Markdown table, a row for each transition, with a line break at its end."""
    rows = [
        ("step", "from", "to", "made true by", "survives a power cut", "after a crash before it"),
        ("---",) * 6,
        *(
            (
                transition.step,
                transition.old or "-",
                transition.new or "-",
                f"`{transition.made_true_by}`" if "(" in transition.made_true_by
                else transition.made_true_by,
                "yes" if transition.durable else "not promised",
                transition.after_crash,
            )
            for transition in TRANSITIONS
        ),
    ]  # fmt: skip
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


if __name__ == "__main__":
    print(table(), end="")
