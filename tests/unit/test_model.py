"""The nouns: whose name it is, and a credential that no way of printing shows."""

import copy
import json
import pickle
import traceback
from collections.abc import Callable
from uuid import UUID

import pytest

from reconciler.model import GREATEST_KEY_ID, Account, Credential, Listed, Owner
from tests.builders import OURS, credential, desired, digest, key, listed

TEXT = "deadbeef-cafe-4f00-8bad-f00d5eedc0de"
SECRET = Credential(UUID(TEXT).bytes)
TRACES = ("dead", "beef", "cafe", "f00d", "5eed", "c0de", "\\xde", "\xde", "222, 173")


@pytest.mark.parametrize("key_id", [1, 9, 10, 123_456, GREATEST_KEY_ID])
def test_a_name_leads_back_to_its_key(key_id: int):
    assert OURS.key_id(OURS.name(key_id)) == key_id


@pytest.mark.parametrize("name", ["K12@OURS", "k12@Ours", "K12@ours"])
def test_our_names_are_known_in_any_case(name: str):
    assert OURS.key_id(name) == 12


@pytest.mark.parametrize(
    "name",
    [
        "",
        "@ours",
        "k@ours",
        "k0@ours",
        "k012@ours",
        "k+1@ours",
        "k1_0@ours",
        "k 1@ours",
        " k1@ours",
        "k1@ours ",
        "k1@ours\n",
        "k1\n@ours",
        "k1@",
        "k1",
        "k1ours",
        "k1@our",
        "k1@oursx",
        "k1@ours@ours",
        "kk1@ours",
        "k1.0@ours",
        "k1e3@ours",
        "k٣@ours",
        "k\uff11@ours",
        "k1²@ours",
        "\u212a1@ours",
        "k1@our\u017f",
        "k1@ours\u0000",
    ],
)
def test_anything_else_is_foreign(name: str):
    assert OURS.key_id(name) is None


def test_another_mark_is_foreign():
    assert Owner("other").key_id("k1@ours") is None
    assert Owner("a-b").key_id("k1@a-b") == 1
    assert Owner("a.b").key_id("k1@a-b") is None


def test_a_name_of_very_many_digits_is_no_trouble():
    assert OURS.key_id(f"k{'9' * 4_000}@ours") == int("9" * 4_000)
    assert OURS.key_id(f"k{'9' * 100_000}@ours") is None


def test_a_credential_is_its_bytes_and_its_text():
    assert SECRET.text() == TEXT
    assert bytes(SECRET) == UUID(TEXT).bytes
    assert Credential(UUID(TEXT).bytes) == SECRET
    assert hash(SECRET) == hash(Credential(UUID(TEXT).bytes))


def test_the_slot_leaves_out_the_third_group():
    twin = Credential(UUID(TEXT.replace("4f00", "1234")).bytes)
    other = Credential(UUID(TEXT.replace("8bad", "8bae")).bytes)

    assert twin.slot == SECRET.slot
    assert other.slot != SECRET.slot


PRINTERS: dict[str, Callable[[object], str]] = {
    "repr": repr,
    "str": str,
    "ascii": ascii,
    "format": format,
    "f-string": lambda secret: f"{secret}",
    "f-string, repr": lambda secret: f"{secret!r}",
    "f-string, width": lambda secret: f"{secret:>80}" if isinstance(secret, Credential) else f"{secret}",
    "percent s": lambda secret: "%s" % (secret,),  # noqa: UP031 - one of the ways that must not show it
    "percent r": lambda secret: "%r" % (secret,),  # noqa: UP031 - one of the ways that must not show it
    "in a list": lambda secret: str([secret]),
    "in a dict": lambda secret: str({secret: secret}),
    "json": lambda secret: json.dumps(repr(secret)),
    "a copy": lambda secret: repr(copy.deepcopy(secret)),
    "a pickle's": lambda secret: repr(pickle.loads(pickle.dumps(secret))),
}


@pytest.mark.parametrize("way", PRINTERS)
@pytest.mark.parametrize(
    "holder",
    [SECRET, Account(SECRET), Listed("k1@ours", Account(SECRET))],
    ids=["credential", "account", "listed"],
)
def test_no_way_of_printing_shows_a_credential(way: str, holder: object):
    printed = PRINTERS[way](holder)

    assert printed
    assert not [trace for trace in TRACES if trace in printed.lower()]
    assert "credential:" in printed


@pytest.mark.parametrize("error", [KeyError, ValueError, RuntimeError])
def test_an_error_that_is_given_a_credential_does_not_show_it(error: type[Exception]):
    raised = error(SECRET)
    printed = "".join(traceback.format_exception(raised)) + repr(raised)

    assert not [trace for trace in TRACES if trace in printed.lower()]


def test_rows_and_snapshots_show_no_credential():
    drawn = credential(1)
    printed = f"{desired(key(1))} {listed(1)}"

    assert drawn.text() not in printed
    assert repr(bytes(drawn)) not in printed
    assert "credential:" in printed


def test_a_pickle_carries_the_credential_and_its_masking():
    back = pickle.loads(pickle.dumps(SECRET))

    assert type(back) is Credential
    assert back == SECRET


def test_digests_tell_accounts_apart():
    assert digest(credential(1)) != digest(credential(2))
