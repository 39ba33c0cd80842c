"""Google Cloud Storage compares the number of a generation where S3 compares ETags: against a service of that kind."""

import email.utils
import http.server
import json
import threading

import pytest

from features.places import place_of

pytestmark = pytest.mark.timeout(60)


class _Objects(http.server.BaseHTTPRequestHandler):
    """PUT with `x-goog-if-generation-match`, GET, HEAD and DELETE of single objects."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def do_PUT(self):
        data, condition = self.rfile.read(int(self.headers["Content-Length"])), self.headers["x-goog-if-generation-match"]
        objects = self.server.objects
        if condition is not None and int(condition) != objects.get(self.path, (b"", 0))[1]:
            self.answer(412)
            return
        self.server.generation += 1
        objects[self.path] = data, self.server.generation
        self.answer(200, generation=self.server.generation)

    def do_GET(self):
        if self.path in self.server.objects:
            data, generation = self.server.objects[self.path]
            self.answer(200, data, generation)
        else:
            self.answer(404, b"<Error><Code>NoSuchKey</Code></Error>")

    do_HEAD = do_GET

    def do_DELETE(self):
        self.answer(204 if self.server.objects.pop(self.path, None) else 404)

    def answer(self, status, data=b"", generation=0):
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Last-Modified", email.utils.formatdate(usegmt=True))
        # An ETag that never changes, so that only the generation can tell one content from the next.
        self.send_header("ETag", '"same"')
        self.send_header("x-goog-generation", str(generation))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


@pytest.fixture
def place(monkeypatch, tmp_path):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Objects)
    server.objects, server.generation = {}, 0
    threading.Thread(target=server.serve_forever, daemon=True).start()
    account = {"gcs_base_url": f"http://127.0.0.1:{server.server_port}", "disable_oauth": True}
    account |= {"client_email": "", "private_key": "", "private_key_id": ""}
    monkeypatch.setenv("GOOGLE_SERVICE_ACCOUNT_KEY", json.dumps(account))
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
    monkeypatch.setenv("VJEPA_LOC_CACHE", str(tmp_path))
    yield place_of("gs://bucket/features")
    server.shutdown()
    server.server_close()


def test_conditions_are_numbers_of_generations(place):
    assert place.create("commits/a%20b.json", b"first") and not place.create("commits/a%20b.json", b"second")
    data, version = place.read_versioned("commits/a%20b.json")
    assert data == b"first" and version == place.entry("commits/a%20b.json").version
    assert place.replace("commits/a%20b.json", b"third", version) and not place.replace("commits/a%20b.json", b"fourth", version)
    assert place.read("commits/a%20b.json") == b"third"
    place.remove("commits/a%20b.json")
    place.remove("commits/a%20b.json")
    assert place.entry("commits/a%20b.json") is None
