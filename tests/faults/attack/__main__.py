"""Command line of the attacks."""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from tests.faults.attack.cases import ATTACKS, generator, load_attacks
from tests.faults.attack.run import Tally, run_attack
from tests.faults.attack.table import list_of_lost, markdown_table

_EXAMPLES = """
examples:
  python -m tests.faults.attack                               all, about an hour
  python -m tests.faults.attack --share 0.05 --minutes 10     a sample
  python -m tests.faults.attack --only annotations rle --output table.md
  python -m tests.faults.attack --only rle --case 17          one case, with its traceback
"""


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.faults.attack",
        description="Attack the package and count what held.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--only", nargs="+", choices=sorted(ATTACKS), metavar="NAME", help=", ".join(ATTACKS))
    add("--share", type=float, default=1.0, help="of the cases of a full run (default 1)")
    add("--minutes", type=float, default=float("inf"), help="start no case after this time")
    add("--seed", type=int, default=0, help="of the random numbers (default 0)")
    add("--case", type=int, help="run this case of one attack in this process")
    add("--output", type=Path, metavar="FILE.md", help="also write the table here")
    args = parser.parse_args(argv)
    if args.case is not None and len(args.only or ()) != 1:
        parser.error("--case needs --only NAME")
    return args


def run_all(args: argparse.Namespace) -> list[Tally]:
    """Run the attacks one after the other, with a progress bar, until the end or Ctrl-C."""
    attacks = [ATTACKS[name] for name in args.only or ATTACKS]
    counts = [max(1, round(attack.count * args.share)) for attack in attacks]
    deadline = time.monotonic() + 60 * args.minutes
    tallies = [Tally(attack, count) for attack, count in zip(attacks, counts, strict=True)]
    with contextlib.suppress(KeyboardInterrupt):
        for number, tally in enumerate(tallies, start=1):
            title = f"{number}/{len(tallies)} {tally.attack.name}"
            with tqdm(total=tally.planned, desc=title, unit="case") as bar:
                run_attack(tally, seed=args.seed, deadline=deadline, advance=bar.update)
                bar.set_postfix(lost=len(tally.lost))
    return tallies


def run_one(args: argparse.Namespace) -> int:
    """Run one case here, in a folder that stays; gives the exit code."""
    attack = ATTACKS[args.only[0]]
    folder = Path("output") / "attack" / f"{attack.name}-{args.case}"
    folder.mkdir(parents=True, exist_ok=True)
    print(f"{attack.name}, case {args.case}, in {folder}")
    try:
        lost = attack.case(args.case, generator(attack.name, args.seed, args.case), folder)
    except Exception:
        traceback.print_exc()
        return 1
    print(f"lost: {lost}" if lost else "held")
    return 1 if lost else 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; gives 1 if anything was lost."""
    load_attacks()
    args = parse_args(argv)
    if args.case is not None:
        return run_one(args)
    start = time.monotonic()
    tallies = run_all(args)
    table = markdown_table(tallies)
    lost = list_of_lost(tallies, args.seed)
    print(f"\n{table}\n\nseed {args.seed}, {(time.monotonic() - start) / 60:.0f} minutes")
    print(lost)
    if args.output:
        args.output.write_text(table + "\n", encoding="utf-8")
    return 1 if any(tally.lost for tally in tallies) else 0


if __name__ == "__main__":
    sys.exit(main())
