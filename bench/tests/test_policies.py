"""Policies on the seeded trace of a portal: what borrowing and usage give."""

from bench.policies import compare, portal_trace

HARD_CAP, PRESENT = "fewest active first, hard cap", "least usage first, borrowing"


def test_borrowing_shortens_the_waits_of_all_and_usage_those_of_light_users() -> None:
    found = compare(portal_trace(1.1), only=(HARD_CAP, PRESENT))
    before, now = found[HARD_CAP], found[PRESENT]
    assert now.waits_s["all"][1] <= 0.7 * before.waits_s["all"][1]
    assert now.waits_s["light users"][1] <= 0.7 * before.waits_s["light users"][1]
    assert now.idle_h == 0
    assert before.idle_h > 1000
