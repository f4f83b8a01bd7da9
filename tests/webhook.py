"""A web server on this machine that takes the messages of `--notify`."""

import http.server
import json
import threading

PATIENCE = 30.0  # seconds


class Server:
    """A web server on this machine that keeps what it is sent."""

    def __init__(self):
        self.got, self.release = [], threading.Event()
        told = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                told.got.append((self.path, json.loads(body)))
                if "hangs" in self.path:
                    told.release.wait(PATIENCE)
                self.send_response(500 if "fails" in self.path else 200)
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    def url(self, path="", scheme="json"):
        return f"{scheme}://127.0.0.1:{self.server.server_port}/{path}"

    def close(self):
        self.release.set()
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()
