"""The outcome of attacks as Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from tests.faults.attack.run import Tally

_SHOWN = 5  # lost cases of an attack that are listed


def markdown_table(tallies: Sequence[Tally]) -> str:
    """A row for each attack."""
    rows = ["| attack | must hold | tried | held | lost |", "|---|---|---:|---:|---:|"]
    for tally in tallies:
        tried = f"{tally.tried:,}"
        if tally.tried < tally.planned:
            tried += f" of {tally.planned:,}"
        held = f"{tally.tried - len(tally.lost):,}"
        attack = tally.attack
        rows.append(
            f"| {attack.title} (`{attack.name}`) | {attack.promise} | {tried} | {held} |"
            f" {len(tally.lost):,} |"
        )
    return "\n".join(rows)


def list_of_lost(tallies: Sequence[Tally], seed: int) -> str:
    """The first lost cases of each attack, with the command that repeats the first one."""
    lines = []
    for tally in tallies:
        for index, text in list(tally.lost.items())[:_SHOWN]:
            shown = " ".join(text.split())
            lines.append(f"- {tally.attack.name}, case {index}: {shown}")
        if tally.lost:
            first = next(iter(tally.lost))
            words = f"--only {tally.attack.name} --seed {seed} --case {first}"
            lines.append(f"  repeat: `python -m tests.faults.attack {words}`")
    return "\n".join(lines)
