"""
Reading the configuration, and telling everything that is wrong with it at once.

Secrets may stand outside of the file: a credential of systemd, or the
environment. No fault shows one; what stands under an unknown key, or is long
or looks like an address, is not shown either, because it may be a secret that
was put in the wrong place.
"""

import difflib
import tomllib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from pydantic import SecretStr, ValidationError
from pydantic_core import ErrorDetails

from reconciler.config.reference import DEPENDENT, bound, sections
from reconciler.config.sections import Config
from reconciler.errors import ConfigError, Fault

Document: TypeAlias = dict[str, Any]

_FULL_INTERVAL_WITHOUT_NOTIFY_SECONDS = 5.0
_SHOWN_CHARACTERS = 30  # fewer than any credential or token has
_PATH_CHARACTERS = 200
_GREATEST_SHOWN = 10**15

_OUTSIDE = (  # section, key, the credential's name, the variable of the environment
    ("database", "dsn", "dsn", "RECONCILER_DSN"),
    ("database", "listen_dsn", "listen_dsn", "RECONCILER_LISTEN_DSN"),
    ("node", "tls_key", "tls.key", None),
)


def load(
    path: Path | None,
    environ: Mapping[str, str],
    credentials_directory: Path | None,
    *,
    file_only: bool = False,
) -> Config:
    """
    Return the configuration in the file at `path`; None stands for an empty file.

    A secret that the file leaves empty is read from `credentials_directory`,
    else from `environ`. Raises ConfigError with every fault there is; a file
    that is no TOML has this one fault only. With `file_only` what may stand
    outside of the file is not missed, for a look at it without the secrets.
    """
    document = _document(path)
    faults = list(_fill_secrets(document, environ, credentials_directory))
    config, refused = _checked(document)
    faults += refused
    faulty = {fault.key for fault in faults}
    rules = _RULES if file_only else _RULES + _RULES_OF_SECRETS
    faults += [
        rule.fault(config) for rule in rules if faulty.isdisjoint(rule.reads) and not rule.holds(config)
    ]
    if faults:
        raise ConfigError(faults)
    return _settled(config)


def _document(path: Path | None) -> Document:
    if path is None:
        return {}
    try:
        return tomllib.loads(path.read_bytes().decode())
    except OSError as error:
        raise ConfigError(
            [Fault(str(path), error.strerror or "not readable", "must be a readable file")]
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigError([Fault(str(path), f"not UTF-8 at byte {error.start}", "must be TOML")]) from error
    except (ValueError, RecursionError) as error:  # tomllib lets int() and datetime() speak for themselves
        raise ConfigError([Fault(str(path), str(error), "must be TOML")]) from error


def _fill_secrets(document: Document, environ: Mapping[str, str], directory: Path | None) -> Iterator[Fault]:
    for section, key, name, variable in _OUTSIDE:
        table = document.setdefault(section, {})
        if not isinstance(table, dict) or table.get(key, "") != "":
            continue
        file = directory / name if directory else None
        try:
            if file and file.exists():
                table[key] = str(file) if key == "tls_key" else file.read_text().strip()
            elif variable:
                table[key] = environ.get(variable, "").strip()
        except (OSError, UnicodeDecodeError):
            yield Fault(f"{section}.{key}", f"the credential {name}", "must be readable text")


def _checked(document: Document) -> tuple[Config, list[Fault]]:
    """Return the configuration with every wrong key at its default, and what is wrong with them."""
    try:
        return Config.model_validate(document), []
    except ValidationError as error:
        found = error.errors(include_url=False)
    sound = {name: dict(table) if isinstance(table, dict) else table for name, table in document.items()}
    for refusal in found:
        section, *key = refusal["loc"]
        table = sound[str(section)] if key else sound
        del table[str(key[0] if key else section)]
    return Config.model_validate(sound), [_fault(*refusal["loc"], refusal=refusal) for refusal in found]


def _fault(section: int | str, key: int | str = "", *, refusal: ErrorDetails) -> Fault:
    """Put a refusal of pydantic into our words."""
    known = sections().get(str(section))
    value = refusal["input"]
    if known is None or not key:
        right = "must be a section" if known else f"no such section{_nearest(str(section), list(sections()))}"
        return Fault(_plain(str(section)), _kind(value), right)
    name = f"{section}.{_plain(str(key))}"
    field = known.get(str(key))
    if field is None:
        return Fault(name, _kind(value), f"no such key{_suggestion(str(section), str(key))}")
    shown = "…" if field.annotation is SecretStr else _shown(value)
    own_words = refusal.get("ctx", {}).get("error")
    return Fault(name, shown, str(own_words) if own_words else bound(field))


def _suggestion(section: str, key: str) -> str:
    elsewhere = [name for name, fields in sections().items() if key in fields]
    if elsewhere:
        return f"; it belongs to [{elsewhere[0]}]"
    return _nearest(key, list(sections()[section]))


def _nearest(word: str, known: list[str]) -> str:
    near = difflib.get_close_matches(word, known, n=1)
    return f"; did you mean {near[0]}?" if near else ""


def _shown(value: object) -> str:
    """Show a value as it was found, unless it may be a secret in the wrong place."""
    if isinstance(value, str):
        return repr(value) if _plain(value) == value else _kind(value)
    if isinstance(value, bool):
        return str(value).lower()
    short = isinstance(value, float) or (isinstance(value, int) and abs(value) < _GREATEST_SHOWN)
    return str(value) if short else _kind(value)


def _plain(text: str) -> str:
    longest = _PATH_CHARACTERS if text.startswith("/") else _SHOWN_CHARACTERS
    plain = len(text) <= longest and text.isprintable() and not set("@=") & set(text)
    return text if plain else f"({_kind(text)})"


def _kind(value: object) -> str:
    match value:
        case str():
            return f"text of {len(value)} characters"
        case dict():
            return "a table"
        case list():
            return "an array"
        case bool():
            return "a truth value"
        case int() | float():
            return "a number"
        case _:
            return "a date or time"


class _Rule(NamedTuple):
    """A bound that reads more than its own key; judged only when all of them are sound."""

    key: str
    others: tuple[str, ...]
    holds: Callable[[Config], bool]
    bound: str

    @property
    def reads(self) -> tuple[str, ...]:
        sections_read = (name.partition(".")[0] for name in (self.key, *self.others))
        return (self.key, *self.others, *sections_read)

    def fault(self, config: Config) -> Fault:
        section, _, key = self.key.partition(".")
        value = getattr(getattr(config, section), key)
        shown = "(empty)" if isinstance(value, SecretStr) else _shown(value)
        return Fault(self.key, shown, self.bound)


def _readable(path: str) -> bool:
    try:
        with Path(path).open("rb"):
            return True
    except (OSError, ValueError):
        return False


def _settled(config: Config) -> Config:
    """Give the one default that depends on another key its value."""
    section, key = DEPENDENT
    if config.database.notify or key in config.cycle.model_fields_set:
        return config
    cycle = config.cycle.model_copy(update={key: _FULL_INTERVAL_WITHOUT_NOTIFY_SECONDS})
    return config.model_copy(update={section: cycle})


_RULES_OF_SECRETS = (
    _Rule(
        "database.dsn",
        (),
        lambda config: bool(config.database.dsn.get_secret_value()),
        "must be given: here, as the credential `dsn`, or as $RECONCILER_DSN",
    ),
    _Rule(
        "node.tls_key",
        ("node.tls_certificate",),
        lambda config: bool(config.node.tls_key or not config.node.tls_certificate),
        "must be given together with node.tls_certificate",
    ),
)
_RULES = (
    _Rule(
        "node.backoff_max_seconds",
        ("node.backoff_initial_seconds",),
        lambda config: config.node.backoff_max_seconds >= config.node.backoff_initial_seconds,
        "must be at least node.backoff_initial_seconds",
    ),
    _Rule(
        "node.tls_certificate",
        ("node.tls_key",),
        lambda config: bool(config.node.tls_certificate or not config.node.tls_key),
        "must be given together with node.tls_key",
    ),
    _Rule(
        "lease.renew_seconds",
        ("lease.ttl_seconds",),
        lambda config: config.lease.renew_seconds * 3 <= config.lease.ttl_seconds,
        "must be at most a third of lease.ttl_seconds",
    ),
    _Rule(
        "lease.margin_seconds",
        ("lease.ttl_seconds",),
        lambda config: config.lease.margin_seconds * 3 <= config.lease.ttl_seconds,
        "must be at most a third of lease.ttl_seconds",
    ),
    _Rule(
        "node.tls_ca",
        (),
        lambda config: not config.node.tls_ca or _readable(config.node.tls_ca),
        "must be a readable file",
    ),
    _Rule(
        "node.tls_certificate",
        (),
        lambda config: not config.node.tls_certificate or _readable(config.node.tls_certificate),
        "must be a readable file",
    ),
    _Rule(
        "node.tls_key",
        (),
        lambda config: not config.node.tls_key or _readable(config.node.tls_key),
        "must be a readable file",
    ),
)
