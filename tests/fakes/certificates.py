"""Certificates for the loopback, made on the spot by openssl: an authority, and what it vouches for."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """PEM files of a certificate and its private key."""

    certificate: Path
    key: Path


class Authority:
    """Signs certificates; `certificate` is its own."""

    def __init__(self, directory: Path, name: str = "authority") -> None:
        if shutil.which("openssl") is None:
            pytest.skip("openssl makes the certificates, and is not on the PATH")
        self._directory = directory
        self._own = self._self_signed(name)
        self.certificate = self._own.certificate

    def pair(self, name: str) -> Pair:
        """Return a certificate for 127.0.0.1 and localhost."""
        pair, request = self._files(name), self._directory / f"{name}.csr"
        extension = self._directory / f"{name}.ext"
        extension.write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\n")
        _openssl("req", "-new", *_NEW_KEY, "-keyout", pair.key, "-out", request, "-subj", f"/CN={name}")
        signed_by = ("-CA", self._own.certificate, "-CAkey", self._own.key, "-CAcreateserial", "-days", "2")
        _openssl("x509", "-req", "-in", request, *signed_by, "-out", pair.certificate, "-extfile", extension)
        return pair

    def _self_signed(self, name: str) -> Pair:
        pair = self._files(name)
        _openssl("req", "-x509", *_NEW_KEY, "-keyout", pair.key, "-out", pair.certificate, "-subj", f"/CN={name}")
        return pair

    def _files(self, name: str) -> Pair:
        return Pair(certificate=self._directory / f"{name}.pem", key=self._directory / f"{name}.key")


_NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


def _openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)
