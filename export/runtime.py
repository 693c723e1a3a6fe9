"""The browser runtime: fetched once from the npm registry, checked against `web/runtime.json`, kept in the user's cache.

The cache is `$PHIAL_WEB_CACHE`, else `$XDG_CACHE_HOME/phial/web`, else `~/.cache/phial/web`; a package lies in `name@version/` with the few
files of it that the page needs and `pinned.json`, which holds the tarball's integrity and the SHA-256 of each file.
"""

import base64
import hashlib
import io
import os
import shutil
import subprocess
import tarfile
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from data_pipeline.errors import InputError
from data_pipeline.storage import atomic_folder, read_json, sha256_of, write_json

PINS = Path(__file__).resolve().parent / "web" / "runtime.json"
REGISTRY = "https://registry.npmjs.org/"
FETCH_LINE = "phial serve --fetch-runtime"
SECONDS = 120  # a registry that says nothing for so long is taken as unreachable


@dataclass(frozen=True, kw_only=True)
class Pin:
    """One registry package: its version, the hash of its tarball, and the files kept of it."""

    name: str
    version: str
    tarball: str  # path below the registry's address
    integrity: str  # "sha512-" and the base64 digest, as npm writes it
    keep: tuple[str, ...]

    @property
    def folder(self) -> str:
        return f"{self.name.replace('/', '+')}@{self.version}"


def read_pins() -> list[Pin]:
    """The packages of `web/runtime.json`."""
    return [Pin(**{**one, "keep": tuple(one["keep"])}) for one in read_json(PINS)["packages"]]


def cache_folder() -> Path:
    """Where the runtime is kept."""
    chosen = os.environ.get("PHIAL_WEB_CACHE")
    if chosen:
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "phial" / "web"


def is_complete(pin: Pin, folder: Path) -> bool:
    """Whether the package lies there as pinned, every file unchanged."""
    try:
        noted = read_json(folder / "pinned.json")
        hashes = noted["files"]
        return noted["integrity"] == pin.integrity and all(sha256_of(folder / name) == hashes[name] for name in pin.keep)
    except (InputError, OSError, KeyError, TypeError):
        return False


def runtime_files() -> dict[str, Path]:
    """Address below /runtime/ -> file, for every pinned package; an error with the line that fetches them where one is missing."""
    files: dict[str, Path] = {}
    for pin in read_pins():
        folder = cache_folder() / pin.folder
        if not is_complete(pin, folder):
            raise InputError(f"the browser runtime ({pin.name} {pin.version}) is not in {cache_folder()}; fetch it once with: {FETCH_LINE}")
        files |= {f"{pin.folder}/{name}": folder / name for name in pin.keep}
    return files


def fetch_runtime(say: Callable[[str], None]) -> None:
    """Puts every pinned package into the cache; one that is there already is left alone. `say` receives one line per package.

    Errors: InputError where the registry cannot be reached, and where what came is not what is pinned; then nothing of it is kept.
    """
    for pin in read_pins():
        folder = cache_folder() / pin.folder
        if is_complete(pin, folder):
            say(f"{pin.name} {pin.version}: there already, in {folder}")
            continue
        unpack(pin, download(pin, say), folder)
        size = sum((folder / name).stat().st_size for name in pin.keep)
        say(f"{pin.name} {pin.version}: {len(pin.keep)} files, {size / 1e6:.1f} MB, SHA-512 as pinned, in {folder}")


def unpack(pin: Pin, tarball: bytes, folder: Path) -> None:
    """Checks the tarball's SHA-512 and writes the kept files, all or none."""
    found = "sha512-" + base64.b64encode(hashlib.sha512(tarball).digest()).decode()
    if found != pin.integrity:
        raise InputError(
            f"{pin.name} {pin.version}: the tarball has {found[:23]}..., {PINS.name} pins {pin.integrity[:23]}...; nothing was kept"
        )
    with tarfile.open(fileobj=io.BytesIO(tarball), mode="r:gz") as archive, atomic_folder(folder) as partial:
        hashes: dict[str, str] = {}
        for name in pin.keep:
            try:
                member = archive.extractfile(f"package/{name}")
            except KeyError:
                member = None
            if member is None:
                raise InputError(f"{pin.name} {pin.version}: the tarball has no file {name}, which {PINS.name} names")
            (partial / name).parent.mkdir(parents=True, exist_ok=True)
            (partial / name).write_bytes(member.read())
            hashes[name] = sha256_of(partial / name)
        write_json(partial / "pinned.json", {"integrity": pin.integrity, "files": hashes})


def download(pin: Pin, say: Callable[[str], None]) -> bytes:
    """The tarball: through npm where it is installed, which knows the user's registry and proxy, else straight from the registry."""
    npm = shutil.which("npm")
    if npm:
        try:
            return npm_pack(npm, pin)
        except (OSError, subprocess.SubprocessError) as error:
            reason = getattr(error, "stderr", None) or str(error)
            say(f"{pin.name} {pin.version}: npm could not fetch it ({last_line(reason)}); trying {registry()}")
    return https_get(pin)


def npm_pack(npm: str, pin: Pin) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        command = [npm, "pack", f"{pin.name}@{pin.version}", "--silent", "--ignore-scripts", "--pack-destination", folder]
        subprocess.run(command, check=True, cwd=folder, capture_output=True, text=True, timeout=5 * SECONDS)
        packed = sorted(Path(folder).glob("*.tgz"))
        if len(packed) != 1:
            raise OSError(f"npm pack left {len(packed)} tarballs")
        return packed[0].read_bytes()


def https_get(pin: Pin) -> bytes:
    address = registry() + pin.tarball
    try:
        with urllib.request.urlopen(address, timeout=SECONDS) as answer:  # proxies and certificates come from the environment
            return answer.read()
    except (urllib.error.URLError, OSError, ValueError) as error:
        raise InputError(
            f"{address}: cannot be fetched ({last_line(str(error))}); "
            f"{FETCH_LINE} needs the internet once, or npm_config_registry set to a mirror"
        ) from error


def registry() -> str:
    """The registry's address, with a closing slash: npm's environment variable, else ~/.npmrc, else npm's own."""
    for name in ("npm_config_registry", "NPM_CONFIG_REGISTRY"):
        if os.environ.get(name):
            return checked(os.environ[name], f"${name}")
    settings = Path.home() / ".npmrc"
    if settings.is_file():
        for line in settings.read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition("=")
            if key.strip() == "registry" and value.strip():
                return checked(value.strip(), str(settings))
    return REGISTRY


def checked(address: str, where: str) -> str:
    if urlsplit(address).scheme not in ("https", "http"):
        raise InputError(f"{where}: a registry's https address is needed, got {address!r}")
    return address.rstrip("/") + "/"


def last_line(text: str) -> str:
    lines: list[Any] = [line for line in text.strip().splitlines() if line.strip()]
    return lines[-1].strip()[:160] if lines else "no reason given"
