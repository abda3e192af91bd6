"""How a link is made of a node's template."""

from uuid import UUID

import pytest

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


def test_a_socket_has_no_host():
    with pytest.raises(Invalid, match="socket"):
        rendered("vless://{uuid}@{host}", OPENS, "n", "unix:/run/xray.sock")
