"""Serve every declared model behind one OpenAI-compatible address, as serving.yaml says."""

import argparse
from pathlib import Path

from pipelines.core.command import run


def main() -> None:
    """Start the gateway and the model servers that it supervises; stop them on Ctrl-C or SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m scripts.serve", description=__doc__)
    parser.add_argument("--root", type=Path, default=Path(), help="folder of the repository (default: this one)")
    parser.add_argument("--config", type=Path, help="declared file (default: serving.yaml in that folder)")
    parser.add_argument("--host", help="address of the public port, instead of listen.host")
    parser.add_argument("--port", type=int, help="public port; 0 takes a free one")
    parser.add_argument("--private-host", help="address of the port of /metrics and /v1/verdict")
    parser.add_argument("--private-port", type=int, help="private port; 0 takes a free one")
    parser.add_argument("--new-key", metavar="PROJECT", help="print a new key and the lines that declare it, and stop")
    parser.add_argument("--quiet", action="store_true", help="no line per request")
    arguments = parser.parse_args()
    if arguments.new_key:
        from pipelines.serving.keys import new_key

        key, hashed = new_key()
        print(f"{key}\n\nThis is the only time it is shown. In serving.yaml, under `keys`:\n")
        print(f"  - {{name: NAME, project: {arguments.new_key}, sha256: {hashed}}}")
        return
    import os

    import uvloop

    from pipelines.release.verdict_page import VerdictPage
    from pipelines.serving.logs import Log
    from pipelines.serving.server import Place, Server

    gates = Path(os.environ.get("GATEHOUSE_GATES") or arguments.root / "gates.yaml")
    address, token = (os.environ.get(f"GATEHOUSE_PROMETHEUS{rest}", "") for rest in ("", "_TOKEN"))
    verdict = VerdictPage(gates, address, token)

    async def serve() -> None:
        path = arguments.config or arguments.root / "serving.yaml"
        place = Place(
            arguments.root, path, arguments.host, arguments.port, arguments.private_host, arguments.private_port
        )
        await Server(place, Log(requests=not arguments.quiet), verdict).run()

    uvloop.run(serve())


if __name__ == "__main__":
    run(main)
