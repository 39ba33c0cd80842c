"""An S3 service on loopback (moto), whose requests can be counted, refused and changed."""

import contextlib
import threading
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import boto3
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server


@dataclass(frozen=True)
class Request:
    """`name` is that of the object below the bucket, or "" for a listing."""

    method: str
    name: str
    query: str


class _Quiet(WSGIRequestHandler):
    def log_request(self, *args: object) -> None:
        pass


@dataclass
class ObjectService:
    """`refuse` is asked before each request: True answers it with 403. `ignore_conditions` drops If-Match and
    If-None-Match, as services do that do not know them.
    """

    port: int = 0
    requests: list[Request] = field(default_factory=list)
    refuse: Callable[[Request], bool] = lambda request: False
    ignore_conditions: bool = False

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def client(self):
        return boto3.client(
            "s3", endpoint_url=self.address, region_name="us-east-1", aws_access_key_id="testing", aws_secret_access_key="testing",
        )

    def new_bucket(self) -> str:
        name = f"bucket-{uuid.uuid4().hex[:12]}"
        self.client.create_bucket(Bucket=name)
        return name

    def names(self, url: str) -> list[str]:
        """The objects below s3://bucket/prefix, relative to it."""
        bucket, _, prefix = url.removeprefix("s3://").partition("/")
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=f"{prefix}/")
        return sorted(entry["Key"].removeprefix(f"{prefix}/") for page in pages for entry in page.get("Contents", ()))

    def body(self, url: str, name: str) -> bytes:
        bucket, _, prefix = url.removeprefix("s3://").partition("/")
        return self.client.get_object(Bucket=bucket, Key=f"{prefix}/{name}")["Body"].read()

    def overwrite(self, url: str, name: str, body: bytes) -> None:
        bucket, _, prefix = url.removeprefix("s3://").partition("/")
        self.client.put_object(Bucket=bucket, Key=f"{prefix}/{name}", Body=body)

    def delete(self, url: str, name: str) -> None:
        bucket, _, prefix = url.removeprefix("s3://").partition("/")
        self.client.delete_object(Bucket=bucket, Key=f"{prefix}/{name}")

    def sent(self, method: str) -> list[str]:
        """The names of the requests of a method so far, probes left out."""
        return [request.name for request in self.requests if request.method == method and "probe-" not in request.name]

    def reset(self) -> None:
        self.requests.clear()
        self.refuse, self.ignore_conditions = (lambda request: False), False


@contextlib.contextmanager
def serve_objects() -> Iterator[ObjectService]:
    """The service, until the end of the block."""
    service, moto = ObjectService(), DomainDispatcherApplication(create_backend_app)
    # A put is atomic in S3; moto looks at a condition and writes in two steps.
    one_at_a_time = threading.Lock()

    def application(environ, start_response):
        name = environ["PATH_INFO"].strip("/").partition("/")[2]
        request = Request(environ["REQUEST_METHOD"], name, environ.get("QUERY_STRING", ""))
        service.requests.append(request)
        if service.refuse(request):
            start_response("403 Forbidden", [("Content-Type", "application/xml")])
            return [b"<Error><Code>AccessDenied</Code><Message>refused by the test</Message></Error>"]
        if service.ignore_conditions:
            for header in ("HTTP_IF_MATCH", "HTTP_IF_NONE_MATCH"):
                environ.pop(header, None)
        with one_at_a_time:
            return moto(environ, start_response)

    server = make_server("127.0.0.1", 0, application, threaded=True, request_handler=_Quiet)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    service.port = server.server_port
    try:
        yield service
    finally:
        server.shutdown()
        server.server_close()
        thread.join(timeout=10)
