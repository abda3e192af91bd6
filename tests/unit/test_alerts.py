"""Alerts and dashboard as their files say: each alert has its words, the dashboard is the generated one."""

import re

import yaml

from tests import dashboard
from tests.alerts import RULE_TESTS_FILE, RUNBOOK, alerts, at_once, drawn, panels, rules, selectors

SECTIONS = re.findall(r"^## (\w+)$", RUNBOOK, re.MULTILINE)


def test_each_alert_has_its_section_and_each_section_its_alert_in_the_same_order():
    assert [alert.name for alert in alerts()] == SECTIONS


def test_each_alert_leads_to_its_section():
    """The anchor of a heading is the heading in lower case."""
    for alert in alerts():
        url = alert.written["annotations"]["runbook_url"]
        assert url == f"config/alerts.md#{alert.name.lower()}", alert.name


def test_each_section_tells_first_what_it_means_and_then_what_to_do():
    bodies = re.split(r"^## \w+\n", RUNBOOK, flags=re.MULTILINE)[1:]

    for name, body in zip(SECTIONS, bodies, strict=True):
        meaning, _, steps = body.strip().partition("\n\n")
        assert len(meaning) > 40, name
        assert steps.startswith("1. "), name


def test_the_runbook_leads_to_sections_that_exist():
    links = re.findall(r"\]\(#(\w+)\)", RUNBOOK)

    assert links
    assert set(links) <= {section.lower() for section in SECTIONS}


def test_each_alert_says_what_it_is_to_whom():
    for alert in alerts():
        assert alert.written["labels"]["severity"] in {"critical", "warning", "info"}, alert.name
        assert set(alert.written["annotations"]) == {"summary", "description", "runbook_url"}, alert.name
        assert alert.name.startswith("Reconciler")


def test_each_alert_is_made_to_fire_by_the_rule_tests():
    expected = RULE_TESTS_FILE.read_text(encoding="utf-8")
    fired = set(re.findall(r'\{alertname="(\w+)"', expected))

    assert fired == {alert.name for alert in alerts()}


def test_the_rules_are_one_group():
    """An alert that reads a rule of another group sees it one interval late, or not, by chance."""
    text = (dashboard.FILE.parent / "alerts.yml").read_text(encoding="utf-8")
    assert [group["name"] for group in yaml.safe_load(text)["groups"]] == ["reconciler"]


def test_every_expression_reads_series_that_we_can_name():
    for rule in rules():
        assert selectors(rule.expr), rule.name
    for place, expr in drawn().items():
        assert "$" not in expr, place


def test_the_shortened_rules_differ_in_their_waiting_only():
    text = "  - alert: A\n    expr: up == 0\n    for: 3m\n    labels: {severity: critical}\n"

    assert at_once(text) == text.replace("for: 3m", "for: 1s")


def test_the_dashboard_is_what_the_generator_writes():
    assert dashboard.FILE.read_text(encoding="utf-8") == dashboard.written(), "run `make dashboard`"


def test_the_dashboard_can_be_taken_anywhere():
    board = dashboard.build()

    assert board.uid == "reconciler"
    assert board.templating is not None
    assert [variable.name for variable in board.templating.list_val or []] == ["datasource", "node"]
    for panel in panels():
        for part in (panel, *panel["targets"]):
            assert part["datasource"] == {"type": "prometheus", "uid": "${datasource}"}, panel["title"]


def test_panels_have_titles_and_numbers_of_their_own_and_overlap_nowhere():
    seen = list(panels())
    cells = [
        (place["x"] + x, place["y"] + y)
        for place in (panel["gridPos"] for panel in seen)
        for x in range(place["w"])
        for y in range(place["h"])
    ]

    assert len({panel["id"] for panel in seen}) == len({panel["title"] for panel in seen}) == len(seen)
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) < 24
