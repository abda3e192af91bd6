"""TLS to a proxy in front of a node, and every way in which it can be set up wrongly."""

import subprocess
from pathlib import Path

import grpc
import pytest

from reconciler.demo.xray import HOST, free_port
from reconciler.errors import NodeRejected, NodeUnreachable
from reconciler.node.xray import TlsFiles
from tests.contract.conftest import Connect
from tests.contract.scripted import Serve

SECONDS = 5


class Authority:
    """A certificate authority made for one test."""

    def __init__(self, directory: Path, name: str) -> None:
        self._directory = directory
        self.certificate, self._key = directory / f"{name}.pem", directory / f"{name}.key"
        self._openssl("req", "-x509", *NEW_KEY, self._key, "-out", self.certificate, "-subj", f"/CN={name}")

    def issue(self, name: str) -> TlsFiles:
        """Return a certificate for loopback, and what trusts this authority."""
        certificate, key = (self._directory / f"{name}.{kind}" for kind in ("pem", "key"))
        signed = ("-CA", self.certificate, "-CAkey", self._key, "-addext", f"subjectAltName=IP:{HOST}")
        self._openssl("req", "-x509", *signed, *NEW_KEY, key, "-out", certificate, "-subj", f"/CN={name}")
        return TlsFiles(self.certificate, certificate, key)

    @staticmethod
    def _openssl(*arguments: object) -> None:
        subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)


NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1", "-keyout")


def server_side(files: TlsFiles, *, asks: bool = False) -> grpc.ServerCredentials:
    assert files.ca
    assert files.certificate
    assert files.key
    pair = (files.key.read_bytes(), files.certificate.read_bytes())
    return grpc.ssl_server_credentials([pair], files.ca.read_bytes(), require_client_auth=asks)


async def test_tls_is_spoken_to_a_proxy_that_we_trust(serve: Serve, connect: Connect, tmp_path: Path):
    authority = Authority(tmp_path, "authority")
    port = await serve(tls=server_side(authority.issue("proxy")))

    node = connect(f"tls:{HOST}:{port}", TlsFiles(authority.certificate))

    assert (await node.probe([], SECONDS)).uptime_seconds == 7


async def test_a_proxy_that_we_do_not_trust_is_rejected(serve: Serve, connect: Connect, tmp_path: Path):
    port = await serve(tls=server_side(Authority(tmp_path, "authority").issue("proxy")))
    other = Authority(tmp_path, "other").certificate

    with pytest.raises(NodeRejected, match="its TLS certificate is not one that we trust"):
        await connect(f"tls:{HOST}:{port}", TlsFiles(other)).probe([], SECONDS)
    with pytest.raises(NodeRejected, match="its TLS certificate is not one that we trust"):
        await connect(f"tls:{HOST}:{port}").probe([], SECONDS)


async def test_a_proxy_that_wants_our_certificate_gets_it(serve: Serve, connect: Connect, tmp_path: Path):
    authority = Authority(tmp_path, "authority")
    port = await serve(tls=server_side(authority.issue("proxy"), asks=True))

    node = connect(f"tls:{HOST}:{port}", authority.issue("daemon"))

    assert (await node.probe([], SECONDS)).uptime_seconds == 7


async def test_a_proxy_that_hangs_up_on_our_certificate_is_unreachable_and_the_text_says_why(
    serve: Serve, connect: Connect, tmp_path: Path
):
    authority = Authority(tmp_path, "authority")
    port = await serve(tls=server_side(authority.issue("proxy"), asks=True))
    stranger = Authority(tmp_path, "other").issue("stranger")

    with pytest.raises(NodeUnreachable, match="another client certificate"):
        await connect(
            f"tls:{HOST}:{port}", TlsFiles(authority.certificate, stranger.certificate, stranger.key)
        ).probe([], SECONDS)
    with pytest.raises(NodeUnreachable, match="another client certificate"):
        await connect(f"tls:{HOST}:{port}", TlsFiles(authority.certificate)).probe([], SECONDS)


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
async def test_a_proxy_that_says_that_it_refuses_our_certificate_has_rejected_it(
    connect: Connect, tmp_path: Path, version: str
):
    authority = Authority(tmp_path, "authority")
    proxy = authority.issue("proxy")
    stranger = Authority(tmp_path, "other").issue("stranger")
    port = free_port()
    told = (
        "-cert",
        proxy.certificate,
        "-key",
        proxy.key,
        "-CAfile",
        authority.certificate,
        "-alpn",
        "h2",
        version,
    )
    demands = ("-Verify", "1", "-verify_return_error", "-accept", f"{HOST}:{port}")
    openssl = subprocess.Popen(  # noqa: ASYNC220 - it returns at once
        ["openssl", "s_server", *map(str, told), *demands], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with openssl:
        assert openssl.stdout
        while openssl.stdout.readline().strip() != b"ACCEPT":
            assert openssl.poll() is None
        shown = TlsFiles(authority.certificate, stranger.certificate, stranger.key)

        with pytest.raises(NodeRejected, match="it refuses our TLS certificate"):
            await connect(f"tls:{HOST}:{port}", shown).probe([], SECONDS)
        openssl.kill()


async def test_tls_files_that_cannot_serve_are_rejected(serve: Serve, connect: Connect, tmp_path: Path):
    authority = Authority(tmp_path, "authority")
    mine = authority.issue("daemon")
    junk = tmp_path / "junk.pem"
    junk.write_text("not a certificate")
    api = f"tls:{HOST}:{await serve(tls=server_side(authority.issue('proxy')))}"

    with pytest.raises(NodeRejected, match=r"TLS file .*absent\.pem: No such file"):
        await connect(api, TlsFiles(tmp_path / "absent.pem")).probe([], SECONDS)
    with pytest.raises(NodeRejected, match="no usable certificate and key"):
        await connect(api, TlsFiles(junk)).probe([], SECONDS)
    with pytest.raises(NodeRejected, match="a certificate needs its key"):
        await connect(api, TlsFiles(authority.certificate, mine.certificate)).probe([], SECONDS)


async def test_a_node_that_speaks_no_tls_is_rejected(serve: Serve, connect: Connect):
    with pytest.raises(NodeRejected, match="it does not speak TLS"):
        await connect(f"tls:{HOST}:{await serve()}").probe([], SECONDS)
