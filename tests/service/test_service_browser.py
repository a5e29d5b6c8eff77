"""The three uses by clicking and typing, as people see them: trigger, schedule, inspect.

Pictures of every page are kept in pytest's folder for this test.
"""

import os
from pathlib import Path

import pytest

from . import browser
from .user import User

pytestmark = [
    pytest.mark.skipif(browser.WITHOUT is not None, reason=str(browser.WITHOUT)),
    pytest.mark.skipif(
        "PAIRFLOW_TEST_JOURNEYS" not in os.environ, reason="seen green by hand only: PAIRFLOW_TEST_JOURNEYS=1 runs it"
    ),
]


def test_trigger_schedule_inspect(user: User, tmp_path: Path) -> None:
    with browser.browser_page() as page:
        at = f"{user.prefect}/deployments/deployment"

        pair = browser.trigger(page, f"{at}/{user.deployment('pair')['id']}", tmp_path)
        given = user.flow_run(pair)["parameters"]["parameters"]
        # Nothing of a group that nobody touched: of coupling and redi only one could be given.
        assert given.keys() == {"dataset", "coupling", "format"}
        assert (given["dataset"]["name"], given["dataset"]["max_rows"]) == ("digits", 60)
        user.wait_for_state(pair, "Completed", timeout_s=300)
        page.get_by_text("Artifacts", exact=True).first.click()
        page.get_by_text("Coupled pairs of digits").first.wait_for()
        browser.photograph(page, tmp_path, "2-run")

        page.goto(f"{at}/{user.deployment('retrain')['id']}")
        for active in (True, False):
            page.get_by_role("switch").first.click()
            user.wait_for(lambda on=active: user.deployment("retrain")["schedules"][0]["active"] is on, timeout_s=30)
            browser.photograph(page, tmp_path, f"3-schedule-{'on' if active else 'off'}")

        # The run as it stands in MLflow, by the link on its page in Prefect.
        page.goto(f"{user.prefect}/artifacts")
        (artifact,) = (
            each
            for each in user.ask("artifacts/filter", {"artifacts": {"flow_run_id": {"any_": [pair]}}})
            if each["type"] == "markdown"
        )
        link = artifact["data"].split(f"({user.mlflow}", 1)[1].split(")", 1)[0]
        page.goto(f"{user.mlflow}{link}")
        page.get_by_text("Datasets used").or_(page.get_by_text("Source run")).or_(
            page.get_by_text("Metrics")
        ).first.wait_for()
        assert "pair digits" in page.locator("body").inner_text()
        browser.photograph(page, tmp_path, "4-mlflow-run")
