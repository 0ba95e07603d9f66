"""Run the mutations that are named, or all, and print a table.

Exit codes: 0 all were caught, 1 one survived, 2 one could not be applied or a test failed without.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from .run import (
    MutationError,
    check_mutation,
    copy_tree,
    format_table,
    preload,
    run_control,
    run_mutation,
)
from .table import MUTATIONS, Mutation


def main() -> int:
    """Run the command line and return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutations", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="mutations; all if none is named")
    parser.add_argument("--list", action="store_true", help="print names and promises, run nothing")
    arguments = parser.parse_args()
    try:
        chosen = choose(arguments.names)
        if arguments.list:
            print("\n".join(f"{one.name}: {one.promise}" for one in chosen))
            return 0
        return run(chosen)
    except MutationError as error:
        print(error, file=sys.stderr)
        return 2


def choose(names: list[str]) -> list[Mutation]:
    """Return the mutations of these names in the table's order; all of them for no name.

    Raises:
        MutationError: a name that the table lacks.
    """
    known = {one.name for one in MUTATIONS}
    if unknown := sorted(set(names) - known):
        raise MutationError(f"No mutation is called {', '.join(unknown)}. See --list.")
    return [one for one in MUTATIONS if not names or one.name in names]


def run(mutations: list[Mutation]) -> int:
    """Run the mutations one by one and print the table; 1 if one survived."""
    for mutation in mutations:
        check_mutation(mutation)
    preload()
    with tempfile.TemporaryDirectory() as folder:
        tree = copy_tree(Path(folder))
        run_control(tree, mutations)
        results = []
        for mutation in mutations:
            results.append(run_mutation(tree, mutation))
            print(f"{results[-1].caught_by or 'SURVIVED'}: {mutation.name}", file=sys.stderr)
    survived = [one.mutation.name for one in results if not one.caught_by]
    print(format_table(results))
    print(f"{len(results) - len(survived)} of {len(results)} mutations were caught.")
    return 1 if survived else 0


sys.exit(main())
