"""The configuration: the reference says what the program does, and every fault is told at once."""

import re
import tomllib
from pathlib import Path

import pytest

from reconciler.config import Config, load, reference, socket_path, split_address
from reconciler.errors import ConfigError

REFERENCE = Path(__file__).parents[2] / "config" / "reconciler.toml"
DSN = "postgresql://reconciler:hunter2@db/shop"
ENVIRON = {"RECONCILER_DSN": DSN}


@pytest.fixture
def read(tmp_path):
    def read(text, environ=None, credentials=None, **options) -> Config:
        path = tmp_path / "reconciler.toml"
        path.write_text(text)
        return load(path, ENVIRON if environ is None else environ, credentials, **options)

    return read


@pytest.fixture
def faults(read):
    """The faults of a text, as key → the whole sentence."""

    def faults(text, environ=None, credentials=None):
        with pytest.raises(ConfigError) as caught:
            read(text, environ, credentials)
        assert "hunter2" not in str(caught.value)
        return {fault.key: str(fault) for fault in caught.value.faults}

    return faults


def test_the_reference_file_is_what_the_models_render():
    assert REFERENCE.read_text() == reference()


def test_the_reference_file_loads_to_the_defaults():
    assert load(REFERENCE, ENVIRON, None) == load(None, ENVIRON, None)


def test_the_reference_names_every_key_of_every_section():
    uncommented = tomllib.loads(reference().replace("# full_interval_seconds", "full_interval_seconds"))

    assert {section: set(table) for section, table in uncommented.items()} == {
        section: set(values) for section, values in Config().model_dump().items()
    }


def test_every_key_is_described():
    for section in Config.model_fields.values():
        for key, field in type(section.default).model_fields.items():
            assert field.description, key


def test_every_key_is_used():
    product = REFERENCE.parent.parent / "reconciler"
    users = [path.read_text() for path in product.rglob("*.py") if path.parent.name != "config"]

    for name, section in Config.model_fields.items():
        for key in type(section.default).model_fields:
            assert any(re.search(rf"\.{key}\b", text) for text in users), f"{name}.{key}"


def test_a_whole_number_is_good_where_a_fraction_may_stand(read):
    assert read("[cycle]\nfull_interval_seconds = 7").cycle.full_interval_seconds == 7.0


@pytest.mark.parametrize(
    ("key", "value", "bound"),
    [
        ("database.pool_size", "0", "must be a whole number from 1 to 50"),
        ("database.pool_size", "51", "must be a whole number from 1 to 50"),
        ("database.pool_size", "4.0", "must be a whole number from 1 to 50"),
        ("database.pool_size", "true", "must be a whole number from 1 to 50"),
        ("database.pool_size", '"4"', "must be a whole number from 1 to 50"),
        ("database.notify", "1", "must be true or false"),
        ("database.notify", '"yes"', "must be true or false"),
        ("cycle.full_interval_seconds", "0.1", "must be a number from 0.2 to 3600"),
        ("cycle.full_interval_seconds", "nan", "must be a number from 0.2 to 3600"),
        ("cycle.full_interval_seconds", "inf", "must be a number from 0.2 to 3600"),
        ("cycle.full_interval_seconds", "-inf", "must be a number from 0.2 to 3600"),
        ("cycle.full_interval_seconds", "false", "must be a number from 0.2 to 3600"),
        ("cycle.full_interval_seconds", '"30s"', "must be a number from 0.2 to 3600"),
        ("guard.share", "1.01", "must be a number from 0 to 1"),
        ("guard.floor", "-1", "must be a whole number from 0 to 1000000"),
        ("log.level", '"loud"', "must be one of debug, info, warning, error"),
        ("log.level", "3", "must be one of debug, info, warning, error"),
        ("http.listen", "9108", "must be text in quotes"),
        ("http.listen", '":9108"', "must be host:port"),
        ("http.listen", '"localhost"', "must be host:port"),
        ("http.listen", '"localhost:65536"', "must be host:port"),
        ("http.listen", '"localhost:٩"', "must be host:port"),
        ("http.listen", '"[1::2::3]:80"', "must be host:port"),
        ("http.listen", '"1::2:80"', "must be host:port"),
        ("http.listen", '"unix:"', "must be host:port"),
        ("http.listen", '"unix:http.sock"', "or unix:/path"),
        ("lease.holder", '"a b"', "must be 1 to 100 letters"),
        ("node.tls_ca", '"/nowhere/ca.pem"', "must be a readable file"),
    ],
)
def test_a_value_out_of_its_bound_is_named_with_the_bound(faults, key, value, bound):
    section, _, name = key.partition(".")

    found = faults(f"[{section}]\n{name} = {value}")

    assert list(found) == [key]
    assert bound in found[key]
    assert f"{value}:".replace('"', "'") in found[key]


def test_all_faults_come_at_once(faults):
    found = faults(
        """
        surprise = 1
        log = 5
        [databse]
        notify = true
        [database]
        pool_sise = 4
        pool_size = true
        [cycle]
        jitter_share = nan
        [node]
        backoff_initial_seconds = 9
        backoff_max_seconds = 3
        tls_ca = "/nowhere/ca.pem"
        [lease]
        ttl_seconds = 6
        holder = "a b"
        """,
        environ={},
    )

    assert set(found) == {
        "surprise",
        "log",
        "databse",
        "database.pool_sise",
        "database.pool_size",
        "database.dsn",
        "cycle.jitter_share",
        "node.backoff_max_seconds",
        "node.tls_ca",
        "lease.renew_seconds",
        "lease.holder",
    }


@pytest.mark.parametrize(
    ("text", "key", "hint"),
    [
        ("[database]\npool_sise = 4", "database.pool_sise", "did you mean pool_size?"),
        ("[databse]", "databse", "did you mean database?"),
        ("[database]\nlisten = ''", "database.listen", "it belongs to [http]"),
        ("[node]\nzzz = 1", "node.zzz", "no such key"),
    ],
)
def test_an_unknown_key_comes_with_the_nearest(faults, text, key, hint):
    assert hint in faults(text)[key]


@pytest.mark.parametrize(
    "text",
    [
        f"[database]\ndsn = ['{DSN}']",
        f"[database]\ndns = '{DSN}'",
        f"dsn = '{DSN}'",
        f"database = '{DSN}'",
        f"[log]\nlevel = '{DSN}'",
        f"[http]\nlisten = '{DSN}'",
        f"[http]\n'{DSN}' = 1",
        f"'{DSN}' = 1",
        "[database]\ndsn = { password = 'hunter2' }",
        "[log]\nlevel = 'password=hunter2'",
        f"[database]\ndsn = {DSN}",
    ],
)
def test_a_secret_in_the_wrong_place_is_not_shown(faults, text):
    assert faults(text)  # the fixture looks for the password


def test_a_secret_is_in_no_repr(read):
    assert "hunter2" not in repr(read(f"[database]\ndsn = '{DSN}'"))


def test_the_dsn_of_the_file_goes_before_the_credential_and_that_before_the_environment(read, tmp_path):
    (tmp_path / "dsn").write_text("host=credential\n")

    assert (
        read("[database]\ndsn = 'host=file'", None, tmp_path).database.dsn.get_secret_value() == "host=file"
    )
    assert read("", None, tmp_path).database.dsn.get_secret_value() == "host=credential"
    assert read("", None, tmp_path / "absent").database.dsn.get_secret_value() == DSN


def test_the_listening_dsn_has_a_credential_and_a_variable_of_its_own(read, tmp_path):
    environ = ENVIRON | {"RECONCILER_LISTEN_DSN": "host=direct"}

    assert read("").database.listen_dsn.get_secret_value() == ""
    assert read("", environ).database.listen_dsn.get_secret_value() == "host=direct"

    (tmp_path / "listen_dsn").write_text("host=credential")

    assert read("", environ, tmp_path).database.listen_dsn.get_secret_value() == "host=credential"


def test_without_any_dsn_the_places_it_may_stand_in_are_named(faults, read):
    assert "$RECONCILER_DSN" in faults("", environ={})["database.dsn"]
    assert "$RECONCILER_DSN" in faults("", environ={"RECONCILER_DSN": " \n"})["database.dsn"]
    assert read("", environ={}, file_only=True).database.dsn.get_secret_value() == ""


def test_a_credential_that_cannot_be_read_is_the_only_fault_of_its_key(faults, tmp_path):
    (tmp_path / "dsn").write_bytes(b"\xff\xfe")

    assert "must be readable text" in faults("", {}, tmp_path)["database.dsn"]


def test_certificate_and_key_come_together(read, faults, tmp_path):
    pem = tmp_path / "node.pem"
    pem.write_text("")

    assert "together" in faults(f"[node]\ntls_certificate = '{pem}'")["node.tls_key"]
    assert "together" in faults(f"[node]\ntls_key = '{pem}'")["node.tls_certificate"]
    assert read(f"[node]\ntls_certificate = '{pem}'", environ={}, file_only=True).node.tls_key == ""

    (tmp_path / "tls.key").write_text("")
    config = read(f"[node]\ntls_certificate = '{pem}'", None, tmp_path)

    assert config.node.tls_key == str(tmp_path / "tls.key")


def test_a_bound_between_two_keys_waits_until_both_are_sound(faults):
    found = faults("[lease]\nttl_seconds = 'x'\nrenew_seconds = 90")

    assert set(found) == {"lease.ttl_seconds"}


def test_without_notify_full_cycles_come_sooner_unless_told_otherwise(read):
    assert read("").cycle.full_interval_seconds == 30
    assert read("[database]\nnotify = false").cycle.full_interval_seconds == 5
    told = read("[database]\nnotify = false\n[cycle]\nfull_interval_seconds = 30")
    assert told.cycle.full_interval_seconds == 30


@pytest.mark.parametrize(
    "text", ["[database", "a = 1\na = 2", "a = 1" + "0" * 5000, "a = " + "[" * 5000, "a=1979-13-01"]
)
def test_what_is_no_toml_is_one_fault_with_the_file_named(faults, text, tmp_path):
    found = faults(text)

    assert list(found) == [str(tmp_path / "reconciler.toml")]
    assert "must be TOML" in found[str(tmp_path / "reconciler.toml")]


def test_a_file_that_cannot_be_read_is_a_fault(tmp_path):
    (tmp_path / "latin").write_bytes(b"a = '\xe9'")

    for path in (tmp_path / "absent", tmp_path, tmp_path / "latin"):
        with pytest.raises(ConfigError) as caught:
            load(path, ENVIRON, None)
        assert caught.value.faults[0].key == str(path)


@pytest.mark.parametrize(
    ("listen", "address"),
    [
        ("127.0.0.1:9108", ("127.0.0.1", 9108)),
        ("localhost:0", ("localhost", 0)),
        ("[::1]:65535", ("::1", 65535)),
    ],
)
def test_an_address_is_split_at_its_port(listen, address):
    assert split_address(listen) == address


def test_an_address_may_be_a_socket_file(read):
    listen = read("[http]\nlisten = 'unix:/run/reconciler/http.sock'").http.listen

    assert socket_path(listen) == Path("/run/reconciler/http.sock")
    assert socket_path("127.0.0.1:9108") is None
    assert socket_path("") is None


def test_no_address_at_all_is_allowed(read):
    assert read("[http]\nlisten = ''").http.listen == ""
