"""What systemd hears from us, over a socket like its own."""

import os
import socket
import time

import pytest

from reconciler.notify import Notifier


@pytest.fixture(params=["path", "abstract"])
def systemd(request, tmp_path):
    """A socket like systemd's, and the environment that names it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        if request.param == "path":
            address = named = str(tmp_path / "notify")
        else:
            named = f"@reconciler-test-{os.getpid()}"
            address = "\0" + named[1:]
        listener.bind(address)
        listener.settimeout(5)
        yield listener, {"NOTIFY_SOCKET": named}


@pytest.fixture
def notifier(systemd):
    notifier = Notifier(systemd[1])
    yield notifier
    notifier.close()


def heard(systemd) -> str:
    text: str = systemd[0].recv(4096).decode()
    return text


def test_each_message_is_what_systemd_expects(systemd, notifier):
    notifier.ready()
    assert heard(systemd) == "READY=1"
    notifier.stopping()
    assert heard(systemd) == "STOPPING=1"
    notifier.watchdog()
    assert heard(systemd) == "WATCHDOG=1"


def test_a_status_is_one_line_in_any_alphabet(systemd, notifier):
    notifier.status("12/12 nodes converged\nREADY=1 — всё хорошо")

    assert heard(systemd) == "STATUS=12/12 nodes converged READY=1 — всё хорошо"


def test_a_reload_carries_the_monotonic_clock(systemd, notifier):
    before = time.monotonic_ns() // 1000
    notifier.reloading()
    after = time.monotonic_ns() // 1000

    first, second = heard(systemd).split("\n")

    assert first == "RELOADING=1"
    assert before <= int(second.removeprefix("MONOTONIC_USEC=")) <= after


def test_a_systemd_that_does_not_read_never_blocks_us(systemd, notifier):
    for _ in range(5000):
        notifier.watchdog()

    assert heard(systemd) == "WATCHDOG=1"


@pytest.mark.parametrize(
    "address", [None, "", "nonsense", "vsock:2:1", "/nowhere/notify", "@nobody", "/" + "x" * 500]
)
def test_without_a_listener_nothing_happens(address):
    notifier = Notifier({} if address is None else {"NOTIFY_SOCKET": address})

    notifier.ready()
    notifier.status("fine")
    notifier.close()
    notifier.stopping()


def test_the_watchdog_is_fed_three_times_as_often_as_it_asks():
    assert Notifier({"WATCHDOG_USEC": "60000000"}).watchdog_interval_seconds == 20.0
    told = {"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": str(os.getpid())}
    assert Notifier(told).watchdog_interval_seconds == 20.0


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"WATCHDOG_USEC": "0"},
        {"WATCHDOG_USEC": "-1"},
        {"WATCHDOG_USEC": "soon"},
        {"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "1"},
        {"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": ""},
    ],
)
def test_a_watchdog_that_is_off_or_another_process_s_is_none(environ):
    assert Notifier(environ).watchdog_interval_seconds is None
