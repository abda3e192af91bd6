"""The reference file and the bounds in words, both made of the sections."""

import inspect
import textwrap
from typing import Literal, get_args, get_origin

import tomli_w
from pydantic import SecretStr
from pydantic.fields import FieldInfo

from reconciler.config.sections import Config

_HEAD = """\
# The configuration of reconciler: every key, at its default. A key that is left out is at its default.
# Unknown keys are refused; `reconciler check-config` tells all faults of a file at once.
"""
_WIDTH = 110

DEPENDENT = ("cycle", "full_interval_seconds")
"""The one key whose default depends on another; the reference keeps it behind a comment sign."""


def sections() -> dict[str, dict[str, FieldInfo]]:
    """Return the fields of every section by their names."""
    return {name: type(field.default).model_fields for name, field in Config.model_fields.items()}


def bound(field: FieldInfo) -> str:
    """Say in words which values `field` takes."""
    kind = field.annotation
    if get_origin(kind) is Literal:
        return "must be one of " + ", ".join(get_args(kind))
    if kind is bool:
        return "must be true or false"
    if kind in (str, SecretStr):
        return "must be text in quotes"
    number = "a whole number" if kind is int else "a number"
    return f"must be {number} from {_limit(field, 'ge')} to {_limit(field, 'le')}"


def _limit(field: FieldInfo, side: str) -> object:
    return next(getattr(limit, side) for limit in field.metadata if hasattr(limit, side))


def reference() -> str:
    """Return the commented reference file: TOML that holds every key at its default."""
    return _HEAD + "".join(_section(name, fields) for name, fields in sections().items())


def _section(name: str, fields: dict[str, FieldInfo]) -> str:
    about = inspect.getdoc(type(Config.model_fields[name].default)) or ""
    head = f"\n\n{_comment(about)}[{name}]\n"
    return head + "".join(_key(name, key, field) for key, field in fields.items())


def _key(section: str, key: str, field: FieldInfo) -> str:
    default = "" if isinstance(field.default, SecretStr) else field.default
    line = tomli_w.dumps({key: default})
    if (section, key) == DEPENDENT:
        line = f"# {line}"
    obvious = field.annotation in (str, SecretStr, bool)
    limits = "" if obvious else _comment(bound(field).removeprefix("must be ").capitalize() + ".")
    return "\n" + _comment(field.description or "") + limits + line


def _comment(text: str) -> str:
    return textwrap.fill(" ".join(text.split()), _WIDTH, initial_indent="# ", subsequent_indent="# ") + "\n"
