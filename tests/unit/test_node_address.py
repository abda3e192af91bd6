import pytest

from reconciler.node.address import Address, parse


@pytest.mark.parametrize(
    ("api", "address"),
    [
        ("127.0.0.1:10085", Address("dns:///127.0.0.1:10085")),
        ("fra-1.example.org:1", Address("dns:///fra-1.example.org:1")),
        ("[::1]:65535", Address("dns:///[::1]:65535")),
        ("tls:fra-1.example.org:443", Address("dns:///fra-1.example.org:443", tls=True)),
        ("tls:[2001:db8::1]:443", Address("dns:///[2001:db8::1]:443", tls=True)),
        ("unix:/run/xray/api.sock", Address("unix:/run/xray/api.sock")),
        ("ipv4:10085", Address("dns:///ipv4:10085")),
    ],
)
def test_an_address_becomes_a_target(api: str, address: Address):
    assert parse(api) == address


@pytest.mark.parametrize(
    ("api", "bound"),
    [
        ("", "expected host:port"),
        ("tls:10085", "expected host:port"),
        ("host", "expected host:port"),
        ("host:port", "expected host:port"),
        ("host:\N{ARABIC-INDIC DIGIT ONE}", "expected host:port"),
        ("::1:10085", "expected host:port"),
        ("https://host:1", "expected host:port"),
        ("host:1\n", "expected host:port"),
        ("host:0", "between 1 and 65535"),
        ("host:65536", "between 1 and 65535"),
        ("unix:run/api.sock", "begins with /"),
        ("unix:", "begins with /"),
    ],
)
def test_anything_else_is_refused_with_what_was_expected(api: str, bound: str):
    with pytest.raises(ValueError, match=bound):
        parse(api)
