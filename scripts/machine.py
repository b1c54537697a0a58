"""Write the kind of this machine to .gatehouse/machine.json, which latency figures depend on."""

import argparse

from pipelines.core.command import run


def main() -> None:
    """Describe the machine."""
    argparse.ArgumentParser(prog="python -m scripts.machine", description=__doc__).parse_args()
    from pathlib import Path

    from pipelines.core.files import write_json
    from pipelines.core.machine import describe

    machine = describe()
    write_json(Path(".gatehouse/machine.json"), {"schema_version": 1, **machine._asdict()})
    print(", ".join(str(part) for part in machine if part))


if __name__ == "__main__":
    run(main)
