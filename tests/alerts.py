"""The rules and the dashboard that we ship, as their files say."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

ROOT = Path(__file__).parents[1]
RULES_FILE = ROOT / "config" / "alerts.yml"
RULES = RULES_FILE.read_text(encoding="utf-8")
RUNBOOK = (ROOT / "config" / "alerts.md").read_text(encoding="utf-8")
RULE_TESTS_FILE = ROOT / "tests" / "rules" / "alerts_test.yml"

_SELECTOR = re.compile(r"\b((?:node|reconciler):\w+:\w+|(?:reconciler|process)_\w+|up\b)(\{[^}]*\})?")


class Rule(NamedTuple):
    """One rule; `name` is the alert's or the recorded series'."""

    name: str
    expr: str
    is_alert: bool
    written: dict[str, Any]


def rules() -> list[Rule]:
    groups = yaml.safe_load(RULES)["groups"]
    return [
        Rule(rule.get("alert") or rule["record"], rule["expr"], "alert" in rule, rule)
        for group in groups
        for rule in group["rules"]
    ]


def alerts() -> list[Rule]:
    return [rule for rule in rules() if rule.is_alert]


def at_once(text: str) -> str:
    """The same rules, each alert firing as soon as its expression has held for a second."""
    return re.sub(r"^( +for:) \w+$", r"\1 1s", text, flags=re.MULTILINE)


def selectors(expr: str) -> set[str]:
    """The series that an expression reads, each as a query of its own."""
    return {name + (labels or "") for name, labels in _SELECTOR.findall(expr)}


def panels() -> Iterator[dict[str, Any]]:
    dashboard = json.loads((ROOT / "config" / "dashboard.json").read_text(encoding="utf-8"))
    return (panel for panel in dashboard["panels"] if panel["type"] != "row")


def drawn() -> dict[str, str]:
    """Every expression of the dashboard as Grafana would send it, by its panel and place."""
    return {
        f"{panel['title']} {target['refId']}": target["expr"]
        .replace("$__rate_interval", "5m")
        .replace("$node", ".*")
        for panel in panels()
        for target in panel["targets"]
    }
