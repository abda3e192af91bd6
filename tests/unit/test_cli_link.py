"""How a link is made of a node's template."""

from urllib.parse import parse_qs, quote, unquote, urlsplit
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.cli.link import rendered
from reconciler.errors import Invalid
from reconciler.model import Credential

OPENS = Credential(UUID(int=7).bytes)


@pytest.mark.parametrize(
    ("api", "host"),
    [
        ("fra-1.example.org:10085", "fra-1.example.org"),
        ("tls:10.0.0.1:443", "10.0.0.1"),
        ("[2001:db8::1]:443", "[2001:db8::1]"),
    ],
)
def test_a_link_has_the_credential_the_host_and_the_name(api, host):
    link = rendered("vless://{uuid}@{host}:443?type=tcp#{name}", OPENS, "fra-1", api)

    assert link == f"vless://{UUID(int=7)}@{host}:443?type=tcp#fra-1"


def test_what_is_put_in_is_percent_encoded():
    assert rendered("{uuid}#{name}", OPENS, "a b/c", "h:1").endswith("#a%20b%2Fc")


@given(
    st.text(st.characters(exclude_characters="{}%", exclude_categories=("C", "Z")), max_size=40),
    st.text(max_size=40),
)
def test_a_link_can_be_read_back(words, path):
    """As a client reads it: the parts by their delimiters, then each part decoded."""
    query = quote(path.encode("utf-8", "replace"), safe="")
    template = f"vless://{{uuid}}@{{host}}:443?type=ws&path={query}&sni=x%2Fy#{words} {{name}}"

    read = urlsplit(rendered(template, OPENS, "fra-1", "[2001:db8::1]:443"))

    assert (read.scheme, read.username, read.hostname, read.port) == (
        "vless",
        str(UUID(int=7)),
        "2001:db8::1",
        443,
    )
    assert parse_qs(read.query, keep_blank_values=True) == {
        "type": ["ws"],
        "path": [path.encode("utf-8", "replace").decode()],
        "sni": ["x/y"],
    }
    assert unquote(read.fragment) == f"{words} fra-1"
    assert read.geturl().isascii()


def test_a_bare_percent_sign_is_encoded_and_an_encoded_one_is_not():
    assert rendered("{uuid}#100% {name}%20x", OPENS, "n", "h:1").endswith("#100%25%20n%20x")


def test_a_socket_has_no_host():
    with pytest.raises(Invalid, match="socket"):
        rendered("vless://{uuid}@{host}", OPENS, "n", "unix:/run/xray.sock")
