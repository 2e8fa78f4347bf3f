"""`page`: a whole fleet in a browser, read-only, with the operator's own credentials."""

import os
import signal
import sys
import webbrowser
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from worker.adapters.web.answers import HealthPortTaken
from worker.adapters.web.http_server import HealthServer, Pages
from worker.app.page.host import fleet_pages
from worker.commands.console import fail, load_settings, note, out, say
from worker.commands.health_port import address_of, own_url
from worker.commands.prerequisites import missing_services
from worker.telemetry import configure_logging

HOST = "127.0.0.1"
DISPLAYS = ("DISPLAY", "WAYLAND_DISPLAY")


def page(urls: Sequence[str], *, port: int, opens_browser: bool) -> None:
    """Serve the page until Ctrl-C."""
    configure_logging()
    cloud = load_settings().cloud
    if not cloud.state_bucket:
        note("STATE_BUCKET is not set: failures, costs and ended jobs of other workers are not shown")
    else:
        for missing in missing_services(cloud, pubsub=False):
            note(f"the state bucket is not shown: {missing}")
    addresses = [address_of(url) for url in urls] or ([] if os.environ.get("HEALTH_PORT") == "0" else [own_url()])
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        with served(fleet_pages(addresses, cloud), port, opens_browser=opens_browser):
            signal.pause()
    except KeyboardInterrupt:
        out().print("stopped")


@contextmanager
def served(pages: Pages, port: int, *, opens_browser: bool) -> Iterator[str]:
    """Serve the pages on this machine, print their address and open it; a taken port ends the command."""
    server = HealthServer({}, host=HOST, port=port, pages=pages)
    try:
        server.__enter__()
    except HealthPortTaken as exc:
        fail(f"port {exc.port} on {exc.host}: {exc.reason}; choose another by --port, or 0 for any free one")
    try:
        say("page ", (server.url, "bold"), "   Ctrl-C ends it")
        if opens_browser and can_open_browser():
            webbrowser.open(server.url)
        yield server.url
    finally:
        server.__exit__(None, None, None)


def can_open_browser() -> bool:
    """Return True on a terminal of a machine with a screen."""
    has_screen = sys.platform in {"darwin", "win32"} or any(os.environ.get(name) for name in DISPLAYS)
    return has_screen and sys.stdout.isatty()
