"""The report says what came late: photos that wait, new labels, a wider test side."""

from dataclasses import replace

from test_report import report_of

from regraft.report.findings import findings
from regraft.split import RELABELLED, WAITING, WIDENED


def said(**late):
    facts = {WAITING: "", RELABELLED: "", WIDENED: ""} | late
    before = {finding.text for finding in findings(report_of())}
    found = findings(replace(report_of(), facts=facts))
    return [str(finding.text) for finding in found if finding.text not in before]


def test_a_report_says_what_came_late_with_its_numbers():
    assert said(**{WAITING: "1"}) == [
        "<b>1 photo</b> in the inbox without a label, used nowhere until there is one."
    ]
    assert said(**{RELABELLED: "2"}) == [
        "<b>2 photos</b> with another label than at first: the newest counts."
    ]
    assert said(**{WIDENED: "3 (<b>)"}) == [
        "The frozen test side took in new photos, <b>3 (&lt;b&gt;)</b>: earlier accuracies are of "
        "fewer."
    ]


def test_a_report_is_silent_where_nothing_came_late():
    assert said() == []
