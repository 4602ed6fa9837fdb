#!/usr/bin/env python3
"""A webhook target that believes nothing: verifies every request with published libraries of others.

Signatures with `standardwebhooks`, events with `cloudevents`:

    pip install 'cloudevents>=2,<3' 'standardwebhooks>=1,<2'

    outbox_receiver.py serve SECRET [--refuse-every N]   listens on a free port of the loopback
    outbox_receiver.py check FILE                        reads a file of the `file` sink

`serve` writes `{"listening": PORT}` and then one JSON object a request, `check` one a line of the file: the event as the
library understood it, or `{"error": ...}`. `serve` answers 204, 400 to what does not verify, and 500 to every Nth request,
verified or not, so that retries are seen too. It ends when its standard input does.
"""

import argparse
import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from cloudevents.core.bindings.http import HTTPMessage, from_binary
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent
from standardwebhooks import Webhook

OUTPUT = threading.Lock()


def say(what):
    with OUTPUT:
        print(json.dumps(what), flush=True)


def shown(event):
    """The attributes and data of an event, as JSON."""
    attributes = dict(event.get_attributes())
    attributes["time"] = attributes["time"].isoformat()
    return {"event": attributes, "data": event.get_data()}


def receiver(secret, refuse_every):
    webhook = Webhook(secret)
    seen = 0

    class Receiver(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            nonlocal seen
            body = self.rfile.read(int(self.headers["content-length"]))
            headers = dict(self.headers.items())
            try:
                webhook.verify(body, headers)
                event = from_binary(HTTPMessage(headers, body), JSONFormat(), CloudEvent)
            except Exception as error:  # whatever a library dislikes is the finding
                say({"error": f"{type(error).__name__}: {error}"})
                return self.answer(400)
            with OUTPUT:
                seen += 1
                refused = refuse_every and seen % refuse_every == 0
            say({"webhook_id": headers["webhook-id"], "refused": bool(refused), **shown(event)})
            self.answer(500 if refused else 204)

        def answer(self, status):
            self.send_response(status)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    return Receiver


def serve(arguments):
    handler = receiver(arguments.secret, arguments.refuse_every)
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    say({"listening": server.server_address[1]})
    sys.stdin.read()
    server.shutdown()


def check(arguments):
    with open(arguments.file, "rb") as lines:
        for line in lines:
            try:
                say(shown(JSONFormat().read(CloudEvent, line)))
            except Exception as error:  # as above
                say({"error": f"{type(error).__name__}: {error}"})


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True)
    serving = commands.add_parser("serve")
    serving.add_argument("secret")
    serving.add_argument("--refuse-every", type=int, default=0)
    serving.set_defaults(run=serve)
    checking = commands.add_parser("check")
    checking.add_argument("file")
    checking.set_defaults(run=check)
    arguments = parser.parse_args()
    arguments.run(arguments)


if __name__ == "__main__":
    main()
