"""Plays a Containerfile and containers without an engine: each image is an overlay over this machine's root.

What the Containerfile says is done in its order: files are copied, commands run by a shell below the overlay.
In place of the base image there is what this machine has, with the Python that runs the tests as `python`.
A container then has its own processes, network and mounts, a root that is read-only, and no rights.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.hosts.network import Namespace, needs_hosts
from tests.packaging.environments import ROOT, clean_environment

BUILD_SECONDS = 280
FREE_BYTES_MIN = 2 << 30
_BASE_PATH = "/python/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_DEVICES = ("null", "zero", "full", "random", "urandom")
_ALONE = ("unshare", "--mount", "--pid", "--fork", "--kill-child")
_ENTER_ROOT = """
mount --rbind /dev "$root/dev"
mount -t proc proc "$root/proc"
"""


@contextmanager
def layers() -> Iterator[Path]:
    """Make a folder for layers, in memory: they cannot lie in the file system that is below them."""
    with TemporaryDirectory(prefix="greenroom-images-", dir="/dev/shm") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def why_no_overlays() -> str:
    """Return why no images can be played here; empty: they can be."""
    if shutil.disk_usage("/dev/shm").free < FREE_BYTES_MIN:
        return f"images take up to {FREE_BYTES_MIN >> 20} MiB in /dev/shm"
    with layers() as folder:
        for name in ("lower", "upper", "work", "root"):
            (folder / name).mkdir()
        told = f"lowerdir={folder}/lower:/,upperdir={folder}/upper,workdir={folder}/work"
        trial = ["mount", "-t", "overlay", "overlay", "-o", told, str(folder / "root")]
        tried = subprocess.run(["unshare", "--mount", *trial], capture_output=True, check=False)
    return "" if tried.returncode == 0 else f"no overlay can be mounted: {tried.stderr.decode().strip()}"


needs_overlays = [needs_hosts, pytest.mark.usefixtures("overlays")]
"""Marks of tests that play containers."""


@dataclass(frozen=True)
class Line:
    """One instruction of a Containerfile."""

    word: str
    rest: str

    def words(self) -> list[str]:
        """Return the words of the exec form, or of the other one."""
        return list(json.loads(self.rest)) if self.rest.startswith("[") else shlex.split(self.rest)


def stages_of(path: Path) -> dict[str, list[Line]]:
    """Return the lines of each stage of a Containerfile, in order."""
    text = re.sub(r"\\\n", "", path.read_text())
    stages: dict[str, list[Line]] = {}
    lines: list[Line] = []
    for each in text.splitlines():
        if not each.strip() or each.startswith("#"):
            continue
        word, _, rest = each.partition(" ")
        if word == "FROM":
            lines = stages[rest.partition(" AS ")[2]] = []
        lines.append(Line(word, rest.strip()))
    return stages


@dataclass
class Image:
    """What a stage has made: the files of its own, and how its containers are started."""

    files: Path
    user: str = "0:0"
    folder: str = "/"
    entrypoint: list[str] = field(default_factory=list)
    command: list[str] = field(default_factory=list)
    variables: dict[str, str] = field(default_factory=dict)


class Images:
    """The images of a Containerfile, in a folder."""

    def __init__(self, containerfile: Path, folder: Path) -> None:
        self._stages = stages_of(containerfile)
        self._folder = folder
        self._made: dict[str, Image] = {}
        for name in ("root", "base"):
            (folder / name).mkdir()
        self._prepare()

    def _prepare(self) -> None:
        """Make what stands for base images: this machine, a `python`, and a way to it for anybody."""
        base = self._folder / "base"
        interpreter = Path(os.path.realpath(sys.executable))
        for parent in interpreter.parents:
            if str(parent) != "/" and not parent.stat().st_mode & 0o001:
                (base / parent.relative_to("/")).mkdir(parents=True, exist_ok=True)
                (base / parent.relative_to("/")).chmod(0o711)
        self._run(base, "/", f'"{interpreter}" -m venv /python')

    def image(self, name: str) -> Image:
        """Return the image of a stage, which is built at first."""
        if name not in self._made:
            self._made[name] = self._build(name, Image(self._folder / name))
        return self._made[name]

    def _build(self, name: str, image: Image) -> Image:
        image.files.mkdir()
        for line in self._stages[name]:
            match line.word:
                case "FROM":
                    pass
                case "RUN":
                    self._run(image.files, f"{self._folder}/base:/", line.rest)
                case "COPY":
                    self._copy(image, line.rest.split())
                case "ENV":
                    image.variables |= dict(word.split("=", 1) for word in line.words())
                case "USER":
                    image.user = line.rest
                case "WORKDIR":
                    image.folder = line.rest
                case "ENTRYPOINT":
                    image.entrypoint = line.words()
                case "CMD":
                    image.command = line.words()
                case "VOLUME" | "EXPOSE" | "STOPSIGNAL":
                    pass
                case other:
                    raise AssertionError(f"{other} is not played yet: {line.rest}")
        return image

    def _copy(self, image: Image, words: list[str]) -> None:
        source = ROOT
        if words[0].startswith("--from="):
            source = self.image(words.pop(0).removeprefix("--from=")).files
        what, where = words
        target = image.files / where.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        ignored = shutil.ignore_patterns("__pycache__", ".*_cache")
        shutil.copytree(source / what.lstrip("/"), target, symlinks=True, ignore=ignored)

    def _run(self, files: Path, lower: str, command: str) -> None:
        """Run a line below an overlay, as root; what it changes are these files."""
        work = self._folder / f"work-{files.name}"
        work.mkdir(exist_ok=True)
        told = f"lowerdir={lower},upperdir={files},workdir={work}"
        script = f'root={self._folder}/root\nmount -t overlay overlay -o "{told}" "$root"{_ENTER_ROOT}'
        done = subprocess.run(
            [*_ALONE, "sh", "-euc", f'{script}exec chroot "$root" sh -euc "$1"', "sh", command],
            capture_output=True,
            text=True,
            check=False,
            timeout=BUILD_SECONDS,
            env=clean_environment(PATH=_BASE_PATH),
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"

    def container(
        self,
        image: Image,
        where: Namespace,
        *,
        command: Sequence[str] = (),
        entrypoint: Sequence[str] = (),
        variables: Mapping[str, str],
        volumes: Mapping[str, tuple[Path, bool]],
        log: Path,
    ) -> subprocess.Popen[bytes]:
        """Start a container on a host, with a read-only root, /tmp and /dev/shm in memory, and no rights.

        `volumes` are folders by the place where they are mounted, and whether they may be written to.
        """
        places = self._folder / f"places-{log.stem}"
        root = self._folder / f"root-{log.stem}"
        for each in (places, root):
            each.mkdir(exist_ok=True)
        mounts = []
        for place, (folder, writable) in volumes.items():
            target = places / place.lstrip("/")
            if folder.is_dir():
                target.mkdir(parents=True, exist_ok=True)
            else:
                target.parent.mkdir(parents=True, exist_ok=True)
                target.touch()
            mounts.append(f'mount --bind "{folder}" "$root{place}"')
            if not writable:
                mounts.append(f'mount -o remount,bind,ro "$root{place}"')
        lower = f"{places}:{image.files}:{self._folder}/base:/"
        script = "\n".join(
            [
                f'root="{root}"',
                f'mount -t overlay overlay -o "lowerdir={lower}" "$root"',
                'mount -t proc proc "$root/proc"',
                'mount -t tmpfs -o mode=755 tmpfs "$root/dev"',
                'mkdir "$root/dev/shm"',
                *(
                    f'touch "$root/dev/{each}" && mount --bind /dev/{each} "$root/dev/{each}"'
                    for each in _DEVICES
                ),
                'mount -t tmpfs -o mode=1777,size=64m tmpfs "$root/dev/shm"',
                'mount -t tmpfs -o mode=1777,size=16m tmpfs "$root/tmp"',
                *mounts,
            ]
        )
        user, _, group = image.user.partition(":")
        set_to = [f"{name}={value}" for name, value in {**image.variables, **variables}.items()]
        drop = ["setpriv", f"--reuid={user}", f"--regid={group}", "--clear-groups", "--no-new-privs"]
        drop += ["--bounding-set=-all", "--inh-caps=-all"]
        started = [*(entrypoint or image.entrypoint), *(command or image.command)]
        inner = ["chroot", str(root), *drop, "env", "-i", "-C", image.folder, *set_to, *started]
        with log.open("ab") as out:
            return subprocess.Popen(
                [*where.bound, *_ALONE, "--uts", "sh", "-euc", f'{script}\nexec "$@"', "sh", *inner],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
            )
