"""`make chaos ARGS="--seed 7 --minutes 5 --nodes 5"`: prints a table and the seed; exit 0 if nothing failed."""

import asyncio
import logging
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

import click
from rich.console import Console

from tests.chaos.report import LONGEST_GAP
from tests.chaos.run import Settings, chaos
from tests.helpers.lan import why_not

console = Console(highlight=False, soft_wrap=True, markup=False)


@click.command()
@click.option("--seed", type=int, help="Which faults, when. Default: a new one, which is printed.")
@click.option("--minutes", default=5.0, show_default=True, help="How long things go wrong.")
@click.option("--nodes", type=click.IntRange(3, 8), default=5, show_default=True)
@click.option("--pause", default=0.3, show_default=True, help="Mean seconds between two questions of a client.")
@click.option("--loopback", is_flag=True, help="No network of its own, also as root: only processes are harmed.")
@click.option("--longest-gap", default=LONGEST_GAP, show_default=True, help="Seconds; 0: do not judge by time.")
@click.option("--keep", type=click.Path(path_type=Path), help="A folder for the nodes' logs, which stays.")
def main(
    seed: int | None, minutes: float, nodes: int, pause: float, loopback: bool, longest_gap: float, keep: Path | None
) -> None:
    """Five real nodes, a steady load, and everything that can go wrong."""
    logging.basicConfig(level=logging.ERROR)
    # As Ctrl-C: the hosts and their links must not stay.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    seed = random.randrange(10_000) if seed is None else seed
    reason = "not asked for" if loopback else why_not()
    if reason:
        console.print(f"only processes are harmed, not the network: {reason}")
    settings = Settings(seed=seed, seconds=minutes * 60, nodes=nodes, has_network=not reason, pause=pause)
    root = keep or Path(tempfile.mkdtemp(prefix="shoal-chaos-"))
    began = time.monotonic()
    verdict = asyncio.run(chaos(root, settings, lambda text: console.print(text)))
    console.print(verdict.table())
    failures = verdict.failures(longest_gap or None)
    for failure in failures:
        console.print(f"  {failure}")
    how = "RED" if failures else "green"
    console.print(
        f"{how}: seed {seed}, {time.monotonic() - began:.0f} s in all{f'; logs in {root}' if failures else ''}"
    )
    if not failures and keep is None:
        shutil.rmtree(root, ignore_errors=True)
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
