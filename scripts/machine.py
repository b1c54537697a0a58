"""Write to .gatehouse/ what results depend on beside declared files: the machine's kind, and versions of libraries."""

import argparse

from pipelines.core.command import run


def main() -> None:
    """Describe the machine and what is installed on it."""
    argparse.ArgumentParser(prog="python -m scripts.machine", description=__doc__).parse_args()
    from pathlib import Path

    from pipelines.core.files import write_json
    from pipelines.core.libraries import DECISIVE, versions
    from pipelines.core.machine import describe

    machine = describe()
    write_json(Path(".gatehouse/machine.json"), {"schema_version": 1, **machine._asdict()})
    write_json(Path(".gatehouse/libraries.json"), {"schema_version": 1, **versions(DECISIVE)})
    print(", ".join(str(part) for part in machine if part))


if __name__ == "__main__":
    run(main)
