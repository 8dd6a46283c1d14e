"""Certificates for servers and their clients, issued by `greenroom certs`."""

import importlib.util
import subprocess
from pathlib import Path

import msgspec

from benchmarks.processes import MissingError, python_module


class Files(msgspec.Struct, frozen=True):
    """Where a holder's certificate, its key and the CA are."""

    cert: Path
    key: Path
    ca: Path


class Authority:
    """A CA for one cluster in a directory. Raises MissingError without the package that it needs."""

    def __init__(self, directory: Path, cluster: str) -> None:
        if importlib.util.find_spec("cryptography") is None:
            raise MissingError("cryptography is not installed: uv sync")
        self._directory = directory
        self._run("init", f"--cluster={cluster}", "--no-passphrase")

    def issue(self, role: str, name: str, hosts: str = "127.0.0.1") -> Files:
        """Certify a holder."""
        out = self._directory / "holders" / f"{role}-{name}"
        self._run(role, name, f"--out={out}", f"--hosts={hosts}")
        return Files(out / f"{name}.pem", out / f"{name}.key", out / "ca.pem")

    def _run(self, *words: str) -> None:
        command = [*python_module("greenroom_cluster"), "certs", *words, f"--ca={self._directory / 'ca'}"]
        subprocess.run(command, check=True, capture_output=True)
