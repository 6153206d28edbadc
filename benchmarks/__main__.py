"""All benchmarks, one after another: ``python -m benchmarks [--only campaign|mail] …`` with the options of each."""

import argparse
import sys

from benchmarks import campaign, mail


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", choices=["campaign", "mail"], help="one of them")
    parser.add_argument("--database", choices=["sqlite", "postgresql", "both"], default="both")
    campaign.add_arguments(parser)
    mail.add_arguments(parser)
    arguments = parser.parse_args()
    found = {"campaign": campaign.run, "mail": mail.run}
    # Each runs, whatever the one before has missed.
    return max([run(arguments) for name, run in found.items() if arguments.only in (None, name)])


if __name__ == "__main__":
    sys.exit(main())
