"""The server that the programs gcloud, bq and curl ask, in the test's process.

A program that was a Python process of its own took 37 ms of processor time; the scripts call hundreds of them.
"""

import shlex
import socketserver
import threading
from functools import partial
from pathlib import Path

from tests.support.deploy.gcloud_twin import Interrupted, Refused, main


class Server(socketserver.ThreadingTCPServer):
    """Answers the programs of every project, one call at a time."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.turn = threading.Lock()
        threading.Thread(target=self.serve_forever, name="gcloud-twin", daemon=True).start()

    def program(self, name: str, folder: Path) -> str:
        """Return a script that sends its words here: their count, then each; the reply is status, stream and text."""
        return f"""#!/bin/bash
[[ "$* " != *"=- "* ]] || IFS= read -r -d '' _  # or the writer of the pipe may be ended by SIGPIPE
exec 3<>/dev/tcp/127.0.0.1/{self.server_address[1]}
printf '%s\\0' $(($# + 2)) {name} {shlex.quote(str(folder))} "$@" >&3
read -r status stream <&3
[[ $status != interrupted ]] || kill -INT 0
IFS= read -r -d '' text <&3
printf %s "$text" >&"${{stream:-2}}"
exit "${{status:-1}}"
"""


class Answer(socketserver.StreamRequestHandler):
    """One call."""

    server: Server

    def handle(self) -> None:
        count = int(self._word())
        name, folder, *words = (self._word() for _ in range(count))
        status: int | str = 0
        stream = 1
        with self.server.turn:
            try:
                text = main(name, words, Path(folder))
            except Refused as exc:
                status, text = exc.status, str(exc)
                stream = 1 if name == "bq" or status == 0 else 2
            except Interrupted:
                status, text = "interrupted", ""
        text += "\n" if text and not text.endswith("\n") else ""
        self.wfile.write(f"{status} {stream}\n{text}".encode())

    def _word(self) -> str:
        return b"".join(iter(partial(self.rfile.read, 1), b"\0")).decode()
