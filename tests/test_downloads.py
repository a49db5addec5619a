"""Downloads of weights: encrypted, whole, the right file, and never waited for without end."""

from __future__ import annotations

import hashlib
import io
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch

from maskfreevis_ext.downloads import TIMEOUT_VARIABLE, download_weights, is_address
from maskfreevis_ext.engine.checkpoint import SafeCheckpointer
from maskfreevis_ext.errors import CheckpointError, ConfigError


def _weights(value: float = 1.0) -> bytes:
    stream = io.BytesIO()
    torch.save({"model": {"weight": torch.full((1, 1), value), "bias": torch.ones(1)}}, stream)
    return stream.getvalue()


class _Server:
    """Answers on this machine; ``answers`` has a body or a function of the handler by path."""

    def __init__(self) -> None:
        self.answers: dict[str, bytes | Callable[[BaseHTTPRequestHandler], None]] = {}
        self.asked: list[str] = []
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                owner.asked.append(self.path)
                answer = owner.answers.get(self.path)
                if answer is None:
                    self.send_error(404)
                elif callable(answer):
                    answer(self)
                else:
                    self.send_response(200)
                    self.send_header("Content-Length", str(len(answer)))
                    self.end_headers()
                    self.wfile.write(answer)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def server(tmp_path, monkeypatch) -> Iterator[_Server]:
    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path / "cache"))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    running = _Server()
    yield running
    running.server.shutdown()
    running.server.server_close()


def _kept(folder: Path) -> list[str]:
    return [p.name for p in (folder / "cache").rglob("*") if p.is_file() and p.suffix != ".lock"]


def test_file_is_fetched_once_and_kept_under_its_whole_address(server):
    server.answers = {"/a/m.pth": _weights(1.0), "/a/m.pth?v=2": _weights(2.0)}
    paths = [download_weights(server.address + p) for p in ("/a/m.pth", "/a/m.pth?v=2") * 2]
    assert paths[:2] == paths[2:]
    assert server.asked == ["/a/m.pth", "/a/m.pth?v=2"]
    values = [torch.load(p, weights_only=True)["model"]["weight"].item() for p in paths[:2]]
    assert values == [1.0, 2.0]
    assert Path(paths[1]).name == "m.pth"


def test_model_loads_from_an_address(server):
    server.answers = {"/m.pth": _weights(7.0)}
    model = torch.nn.Linear(1, 1)
    checkpointer = SafeCheckpointer(model)
    checkpointer.load(f"{server.address}/m.pth?matching_heuristics=True")
    assert model.weight.item() == 7.0
    assert server.asked == ["/m.pth"]


@pytest.mark.parametrize(
    "address",
    [
        "http://example.com/m.pth",
        "HTTP://example.com/m.pth",
        "ftp://127.0.0.1/m.pth",
        "http://127.0.0.1.example.com/m.pth",
        "http://user@example.com@127.0.0.2/m.pth",
    ],
)
def test_only_encrypted_addresses_are_taken(server, address):
    assert is_address(address)
    with pytest.raises(CheckpointError, match="https://"):
        SafeCheckpointer(torch.nn.Linear(1, 1)).load(address)


def test_redirect_to_an_address_that_is_not_encrypted_is_refused(server, tmp_path):
    def redirect(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(302)
        handler.send_header("Location", "http://example.com/m.pth")
        handler.end_headers()

    server.answers = {"/m.pth": redirect}
    with pytest.raises(CheckpointError, match=r"example\.com/m\.pth: expected.*https"):
        download_weights(server.address + "/m.pth")
    assert _kept(tmp_path) == []


class TestChecksum:
    """SHA-256 in the address or in the file name."""

    def test_right_one_passes(self, server):
        body = _weights()
        digest = hashlib.sha256(body).hexdigest()
        server.answers = {f"/m-{digest[:8]}.pth": body, "/m.pth": body, "/m-20220101.pth": body}
        last = "m-20220101.pth"  # a date
        for address in (f"m-{digest[:8]}.pth", f"m.pth#sha256={digest.upper()}", last):
            path = download_weights(f"{server.address}/{address}")
            assert Path(path).read_bytes() == body

    @pytest.mark.parametrize("name", ["m-0676ba61.pth", "m.pth#sha256=" + "0" * 64])
    def test_wrong_one_is_not_kept(self, server, tmp_path, name):
        server.answers = {"/" + name.split("#")[0]: _weights()}
        with pytest.raises(CheckpointError, match=r"SHA-256 begins with 0.*another one"):
            download_weights(f"{server.address}/{name}")
        assert _kept(tmp_path) == []

    def test_earlier_download_of_another_file_is_replaced(self, server):
        server.answers = {"/m.pth": _weights(1.0)}
        download_weights(server.address + "/m.pth")
        body = server.answers["/m.pth"] = _weights(2.0)
        path = download_weights(f"{server.address}/m.pth#sha256={hashlib.sha256(body).hexdigest()}")
        assert Path(path).read_bytes() == body

    @pytest.mark.parametrize("fragment", ["sha256=12", "md5=" + "0" * 32, "x"])
    def test_unknown_fragment_is_refused(self, server, fragment):
        with pytest.raises(CheckpointError, match="expected sha256= and 64 digits"):
            download_weights(f"{server.address}/m.pth#{fragment}")


@pytest.mark.parametrize("share", [0.0, 0.5, 0.999])
def test_cut_download_is_not_kept(server, tmp_path, share):
    body = _weights()

    def cut(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body[: int(share * len(body))])

    server.answers = {"/m.pth": cut}
    with pytest.raises(CheckpointError, match=rf"expected {len(body)} bytes, got .*cut"):
        download_weights(server.address + "/m.pth")
    assert _kept(tmp_path) == []
    server.answers = {"/m.pth": body}
    download_weights(server.address + "/m.pth")


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"<!DOCTYPE html><html>log in</html>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "Git LFS"),
        (b"\x89PNG\r\n\x1a\n", "a picture"),
        (_weights(5.0).replace(struct.pack("f", 5.0), struct.pack("f", 6.0)), "damaged"),
        (_weights()[:-100], "damaged"),
        (b"", "got 0"),
    ],
)
def test_what_is_no_weights_file_is_not_kept(server, tmp_path, body, told):
    server.answers = {"/m.pth": body}
    with pytest.raises(CheckpointError, match=told):
        download_weights(server.address + "/m.pth")
    assert _kept(tmp_path) == []


def test_missing_file_and_absent_server(server):
    with pytest.raises(
        CheckpointError, match=r"m\.pth could not be fetched: the server answers 404"
    ):
        download_weights(server.address + "/m.pth")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    with pytest.raises(CheckpointError, match="refused"):
        download_weights(f"http://127.0.0.1:{port}/m.pth")


def test_server_that_never_answers_is_given_up(server, monkeypatch):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        monkeypatch.setenv(TIMEOUT_VARIABLE, "0.3")
        start = time.monotonic()
        with pytest.raises(CheckpointError, match=f"nothing for too long.*{TIMEOUT_VARIABLE}"):
            download_weights(f"http://127.0.0.1:{silent.getsockname()[1]}/m.pth")
    assert time.monotonic() - start < 20  # of 30 s, unless the variable says another time


def test_server_that_falls_silent_is_given_up(server, tmp_path, monkeypatch):
    monkeypatch.setenv(TIMEOUT_VARIABLE, "0.3")
    body, done = _weights(), threading.Event()

    def stall(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body[:100])
        handler.wfile.flush()
        done.wait(30)

    server.answers = {"/m.pth": stall}
    with pytest.raises(CheckpointError, match="nothing for too long"):
        download_weights(server.address + "/m.pth")
    done.set()
    assert _kept(tmp_path) == []


@pytest.mark.parametrize("value", ["0", "-1", "nan", "inf", "ten"])
def test_timeout_must_be_a_number(server, monkeypatch, value):
    monkeypatch.setenv(TIMEOUT_VARIABLE, value)
    with pytest.raises(ConfigError, match=f"{TIMEOUT_VARIABLE}: expected seconds"):
        download_weights(server.address + "/m.pth")


def test_names_of_detectron2_are_fetched_in_the_same_way(monkeypatch, tmp_path):
    asked = []

    def download(address: str) -> str:
        asked.append(address)
        torch.save({"model": torch.nn.Linear(1, 1).state_dict()}, tmp_path / "m.pth")
        return str(tmp_path / "m.pth")

    monkeypatch.setattr("maskfreevis_ext.engine.checkpoint.download_weights", download)
    SafeCheckpointer(torch.nn.Linear(1, 1)).load("detectron2://a/m.pth")
    assert len(asked) == 1
    assert asked[0].startswith("https://")
    assert asked[0].endswith("/a/m.pth")


@pytest.mark.parametrize("name", ["catalog://no/such", "s3://bucket/m.pth", "file:///m.pth"])
def test_names_that_nobody_knows_are_one_line(name):
    with pytest.raises(CheckpointError, match=name):
        SafeCheckpointer(torch.nn.Linear(1, 1)).load(name)
