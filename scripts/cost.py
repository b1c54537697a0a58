"""What was spent, by project, day, model, route, variant or user: from the gateway's ledger."""

import argparse
import json
import time
from pathlib import Path

from pipelines.core.command import run


def main() -> None:
    """Print a table with bars, or JSON; with --plot also write a page with a chart."""
    parser = argparse.ArgumentParser(prog="python -m scripts.cost", description=__doc__)
    parser.add_argument("--by", default="project,day", help="project, day, month, route, variant, model, user")
    parser.add_argument(
        "--since", default="", help="first day (UTC), such as 2026-01-31, or 7d for the last seven days"
    )
    parser.add_argument("--until", default="", help="last day (UTC)")
    parser.add_argument("--project", default="", help="only this one")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="write an HTML page with a chart")
    parser.add_argument("--root", type=Path, default=Path(), help="folder of the repository (default: this one)")
    parser.add_argument("--config", type=Path, help="declared file (default: serving.yaml in that folder)")
    arguments = parser.parse_args()
    from pipelines.core.errors import ServiceError
    from pipelines.core.files import write_text
    from pipelines.serving.config import load_serving
    from pipelines.serving.cost import Wanted, add_up, as_json, parse_by, parse_day, table
    from pipelines.serving.cost_plot import page
    from pipelines.serving.ledger_database import Away, open_database

    now = time.time()
    since = parse_day("--since", arguments.since, now)
    until = parse_day("--until", arguments.until, now)
    wanted = Wanted(parse_by(arguments.by), since, until, arguments.project)
    settings = load_serving(arguments.config or arguments.root / "serving.yaml").ledger
    database = open_database(settings, arguments.root, writes=False)
    try:
        database.open()
        costs = add_up(database, wanted)
    except Away as away:
        raise ServiceError(f"{away}; is the ledger's database there?") from None
    finally:
        database.close()
    if arguments.json:
        print(json.dumps(as_json(costs)))
    else:
        print(table(costs) if costs.rows else "nothing was booked in this time")
    if arguments.plot:
        write_text(arguments.plot, page(costs, f"Cost by {', '.join(costs.by)}"))


if __name__ == "__main__":
    run(main)
