import base64
import hashlib
import io
import tarfile
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from data_pipeline.errors import InputError
from data_pipeline.storage import read_json, write_json
from export import runtime
from export.runtime import Pin, cache_folder, is_complete, read_pins, runtime_files, unpack
from export.serve import PAGE, WEB, build_app, listen
from tests.export.small_package import small_package


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_package(tmp_path_factory.mktemp("serve"))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache whose files are not the real ones but lie there as a fetch would have left them."""
    monkeypatch.setenv("PHIAL_WEB_CACHE", str(tmp_path / "cache"))
    for pin in read_pins():
        for name in pin.keep:
            path = cache_folder() / pin.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(name.encode())
        hashes = {name: hashlib.sha256(name.encode()).hexdigest() for name in pin.keep}
        write_json(cache_folder() / pin.folder / "pinned.json", {"integrity": pin.integrity, "files": hashes})
    return cache_folder()


@pytest.fixture
def client(package: Path, cache: Path) -> TestClient:
    return TestClient(build_app(package), base_url="http://127.0.0.1")


def tarball(files: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(f"package/{name}")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return stream.getvalue()


def pin_for(content: bytes, keep: tuple[str, ...]) -> Pin:
    digest = "sha512-" + base64.b64encode(hashlib.sha512(content).digest()).decode()
    return Pin(name="thing", version="1.0.0", tarball="thing.tgz", integrity=digest, keep=keep)


def test_every_page_file_is_served_with_the_isolating_headers(client: TestClient) -> None:
    for name in ("", *PAGE):
        answer = client.get(f"/{name}")
        assert answer.status_code == 200
        assert answer.headers["cross-origin-opener-policy"] == "same-origin"
        assert answer.headers["cross-origin-embedder-policy"] == "require-corp"
        assert "connect-src 'self'" in answer.headers["content-security-policy"]
    assert client.get("/worker.js").headers["content-type"].startswith("text/javascript")
    assert {path.name for path in WEB.iterdir() if path.name != "runtime.json"} == set(PAGE)


def test_the_wasm_type_and_the_cache_headers(client: TestClient, package: Path) -> None:
    pin = read_pins()[0]
    wasm = client.get(f"/runtime/{pin.folder}/dist/ort-wasm-simd-threaded.wasm")
    assert wasm.headers["content-type"] == "application/wasm"
    entry = read_json(package / "manifest.json")["files"]["model.onnx"]
    assert "immutable" in client.get(f"/package/model.onnx?v={entry['sha256']}").headers["cache-control"]
    assert client.get("/package/model.onnx?v=other").headers["cache-control"] == "no-cache"
    tag = client.get("/app.js").headers["etag"]
    assert client.get("/app.js", headers={"If-None-Match": tag}).status_code == 304


@pytest.mark.parametrize(
    "path", ["/../serve.py", "/package/../manifest.json", "/%2e%2e/serve.py", "/package/%2e%2e%2fmodel", "/runtime.json"]
)
def test_nothing_beside_the_list_is_served(client: TestClient, path: str) -> None:
    assert client.get(path).status_code == 404


def test_nothing_can_be_sent_and_other_hosts_are_refused(client: TestClient) -> None:
    assert client.post("/", content="text").status_code == 405
    assert client.get("/", headers={"Host": "elsewhere.example"}).status_code == 400


def test_a_damaged_package_and_a_missing_runtime_are_one_line(
    package: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    for file in package.iterdir():
        (broken / file.name).write_bytes(file.read_bytes())
    data = bytearray((broken / "model.onnx.data").read_bytes())
    data[100] ^= 1
    (broken / "model.onnx.data").write_bytes(data)
    with pytest.raises(InputError, match="wrong checksum"):
        build_app(broken)
    monkeypatch.setenv("PHIAL_WEB_CACHE", str(tmp_path / "nothing"))
    with pytest.raises(InputError, match="phial serve --fetch-runtime"):
        build_app(package)


def test_a_changed_runtime_file_is_not_served(cache: Path) -> None:
    assert runtime_files()
    pin = read_pins()[1]
    (cache / pin.folder / pin.keep[0]).write_bytes(b"changed")
    with pytest.raises(InputError, match="--fetch-runtime"):
        runtime_files()


def test_unpack_keeps_what_is_pinned_and_nothing_of_what_is_not(tmp_path: Path) -> None:
    content = tarball({"dist/a.js": b"a", "dist/b.js": b"b"})
    pin = pin_for(content, ("dist/a.js",))
    unpack(pin, content, tmp_path / "good")
    assert is_complete(pin, tmp_path / "good")
    assert not (tmp_path / "good/dist/b.js").exists()
    with pytest.raises(InputError, match="nothing was kept"):
        unpack(pin, content + b"x", tmp_path / "bad")
    with pytest.raises(InputError, match="has no file"):
        unpack(pin_for(content, ("dist/c.js",)), content, tmp_path / "bad")
    assert not (tmp_path / "bad").exists()


def test_an_unreachable_registry_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PHIAL_WEB_CACHE", str(tmp_path))
    monkeypatch.setattr(runtime.shutil, "which", lambda _: None)
    monkeypatch.setenv("npm_config_registry", "http://127.0.0.1:9")
    with pytest.raises(InputError, match="cannot be fetched"):
        runtime.fetch_runtime(lambda _: None)
    monkeypatch.setenv("npm_config_registry", "file:///etc")
    with pytest.raises(InputError, match="https address is needed"):
        runtime.fetch_runtime(lambda _: None)
    assert list(tmp_path.iterdir()) == []


def test_a_taken_port_is_one_line_and_the_next_free_one_is_found() -> None:
    first, second = listen(None), listen(None)
    try:
        assert first.getsockname()[1] != second.getsockname()[1]
        with pytest.raises(InputError, match="taken"):
            listen(first.getsockname()[1])
    finally:
        first.close()
        second.close()
