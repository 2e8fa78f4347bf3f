"""The commands that need `worker.embedded`, which the wheel leaves out, as it does this file."""

from pathlib import Path
from typing import Annotated

import typer

from worker.commands.group import MOST_PORT, OpensBrowser, PagePort, Verbose

PubSubPort = Annotated[int, typer.Option(help="port of the Pub/Sub server; 0: any free one", min=0, max=MOST_PORT)]
StoragePort = Annotated[
    int, typer.Option(help="port of the Cloud Storage server; 0: any free one", min=0, max=MOST_PORT)
]


def demo(
    audio: Annotated[
        Path | None, typer.Argument(help="your own audio instead of the samples", exists=True, dir_okay=False)
    ] = None,
    out: Annotated[Path, typer.Option(help="folder for what it leaves")] = Path("demo-output"),
    fallback: Annotated[
        bool, typer.Option("--fallback", help="kill the inference process at work; a stand-in for Deepgram steps in")
    ] = False,
    verbose: Verbose = False,
) -> None:
    """Three jobs through the whole worker on this machine; no cloud account, no GPU."""
    if fallback:
        if audio is not None:
            raise typer.BadParameter("the stand-in for Deepgram knows the samples only", param_hint="AUDIO")
        from worker.commands.demo_fallback import demo_fallback

        demo_fallback(out, verbose=verbose)
        return
    from worker.commands.demo import demo as command

    command(audio, out, verbose=verbose)


def emulators(
    root: Annotated[Path, typer.Option(help="folder for the objects")] = Path("demo-output/gcs"),
    pubsub_port: PubSubPort = 8085,
    storage_port: StoragePort = 4443,
    pubsub_host: Annotated[
        str | None, typer.Option(help="host:port of Google's emulator: make the topics there, start no server of ours")
    ] = None,
    env: Annotated[bool, typer.Option("--env", help="only print the exports, for eval; start nothing")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="the variables as one JSON document, not as exports")] = False,
) -> None:
    """Development servers for Pub/Sub and Cloud Storage, in the foreground."""
    from worker.commands import emulators as command

    if env and 0 in {pubsub_port, storage_port}:
        raise typer.BadParameter("needs the ports: 0 is any free one", param_hint="--env")
    if env:
        pubsub, storage = pubsub_host or f"127.0.0.1:{pubsub_port}", f"http://127.0.0.1:{storage_port}"
        command.print_environment(pubsub, storage, as_json=as_json)
        return
    ports = {"pubsub_port": pubsub_port, "storage_port": storage_port}
    command.emulators(root, **ports, pubsub_host=pubsub_host, as_json=as_json)


def dev(
    root: Annotated[Path, typer.Option(help="folder for objects, uploads and the log")] = Path("dev-output"),
    port: PagePort = 8090,
    pubsub_port: PubSubPort = 8085,
    storage_port: StoragePort = 4443,
    browser: OpensBrowser = True,
) -> None:
    """Everything on this machine: development servers, a worker, and a page to drop audio on. Ctrl-C ends it all."""
    from worker.commands.dev import Ports
    from worker.commands.dev import dev as command

    command(root, Ports(page=port, pubsub=pubsub_port, storage=storage_port), opens_browser=browser)
