"""Findings about unlabelled photos, changed labels and an extended test split."""

import re
from dataclasses import replace

from test_report import report_of

from regraft.data.split import RELABELLED, TEST_EXTENDED, WAITING
from regraft.evaluation.report.findings import findings


def said(**late):
    facts = {WAITING: "", RELABELLED: "", TEST_EXTENDED: ""} | late
    before = {finding.text for finding in findings(report_of())}
    found = findings(replace(report_of(), facts=facts))
    return [str(finding.text) for finding in found if finding.text not in before]


def test_a_report_says_what_came_late_with_its_numbers():
    [waiting] = said(**{WAITING: "1"})
    assert re.search("<b>1 photo</b>.* inbox ", waiting)
    [relabelled] = said(**{RELABELLED: "2"})
    assert re.search("<b>2 photos</b>.* label ", relabelled)
    [widened] = said(**{TEST_EXTENDED: "3 (<b>)"})
    assert re.search(r" test .*<b>3 \(&lt;b&gt;\)</b>", widened)


def test_a_report_is_silent_where_nothing_came_late():
    assert said() == []
