"""The three uses as people walk them, from an empty home: trigger, schedule, inspect; by clicking and typing.

The tests tell one story, in their order. Pictures of every page are kept in pytest's folder, or in
PAIRFLOW_TEST_PICTURES.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from mlflow import MlflowClient

from flows.lineage import page_address

from ..service.schedules import Schedule
from ..service.user import User
from . import browser
from .conftest import of_readme

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = [
    pytest.mark.story,
    pytest.mark.timeout(1800),  # of a machine that is very busy
    pytest.mark.skipif(browser.WITHOUT is not None, reason=str(browser.WITHOUT)),
]

_OVERRIDES = (
    "training.num_steps=4",
    "training.batch_size=16",
    "model.hidden_size=16",
    "evaluation.steps=[1, 2]",
    "evaluation.num_samples=32",
)
_FRECHET = "frechet_classifier_features"


def _address(person: User, deployment: str) -> str:
    return f"{person.prefect}/deployments/deployment/{person.deployment(deployment)['id']}"


def test_the_service_says_how_it_is(newcomer: User) -> None:
    # Just after a start the watch may not have seen Ray's node yet, on a machine that is very busy.
    newcomer.wait_for(lambda: newcomer.run(*of_readme("status")).returncode == 0, timeout_s=180, or_say=newcomer.work)


class TestTrigger:
    def test_what_does_not_fit_is_refused_on_the_form(self, newcomer: User, page: "Page", pictures: Path) -> None:
        form = browser.Form(page, _address(newcomer, "pipeline"))
        form.fill("Max Rows", "0")
        form.submit()
        page.get_by_text("0 is less than the minimum of 1").first.wait_for()
        browser.photograph(page, pictures, "1-refused")
        form = browser.Form(page, _address(newcomer, "pipeline"))
        form.add("Overrides", "training.num_step=50")
        form.submit()
        page.get_by_text("'training.num_step=50' does not match").first.wait_for()
        browser.photograph(page, pictures, "1-mistyped")
        assert newcomer.ask("flow_runs/count", {}) == 0

    def test_a_pipeline(self, newcomer: User, page: "Page", pictures: Path) -> None:
        form = browser.Form(page, _address(newcomer, "pipeline"))
        form.fill("Max Rows", "100")
        for each in _OVERRIDES:
            form.add("Overrides", each)
        browser.photograph(page, pictures, "2-form")
        form.submit()
        run_id = form.run()
        # What was said, and nothing of a group that nobody touched.
        given = newcomer.flow_run(run_id)["parameters"]["parameters"]
        assert given == {
            "preset": "demo",
            "dataset": {"name": "digits", "max_rows": 100},
            "overrides": [*_OVERRIDES],
            "format": "zarr",
        }
        browser.wait_elsewhere(page)
        run = newcomer.wait_for_state(run_id, "Completed", "Failed", "Crashed", timeout_s=900)
        assert run["state_name"] == "Completed", run["state"]
        said = run["state"]["message"]
        assert said.startswith("At 1 step ")
        page.goto(f"{newcomer.prefect}/runs/flow-run/{run_id}")
        page.get_by_text(said.split(" · ")[0]).first.wait_for()
        browser.photograph(page, pictures, "3-run")

    def test_the_page_says_what_was_decided_and_what_came_of_it(
        self, newcomer: User, page: "Page", pictures: Path
    ) -> None:
        page.get_by_text("Artifacts", exact=True).first.click()
        page.get_by_text("Settings: 5 of yours, the others of the preset demo").first.wait_for()
        browser.photograph(page, pictures, "4-artifacts")
        page.get_by_text("Settings: 5 of yours, the others of the preset demo").first.click()
        page.get_by_text("training.num_steps").first.wait_for()
        browser.photograph(page, pictures, "5-settings")


class TestSchedule:
    def test_one_that_is_switched_on_fires(self, newcomer: User, page: "Page", pictures: Path) -> None:
        assert "retrain digits: at 03:00 on Sunday, UTC" in {
            each["slug"] for each in newcomer.deployment("retrain")["schedules"]
        }
        small = {"overrides": [*_OVERRIDES[:3]], "trials": 2, "num_samples": 8, "steps": 1}
        schedule = Schedule.make(
            newcomer,
            {"cron": "* * * * *", "timezone": "UTC"},
            active=False,
            dataset={"name": "digits", "max_rows": 100},
            **small,
        )
        page.goto(_address(newcomer, "retrain"))
        page.get_by_text("retrain digits: at 03:00 on Sunday, UTC").first.wait_for()
        page.get_by_text("Every minute").first.wait_for()
        browser.photograph(page, pictures, "6-schedules")
        page.get_by_role("switch").last.click()
        newcomer.wait_for(lambda: self._active(newcomer, schedule.id), timeout_s=30)
        browser.wait_elsewhere(page)
        run = schedule.fires()
        page.goto(_address(newcomer, "retrain"))
        page.get_by_role("switch").last.click()
        newcomer.wait_for(lambda: not self._active(newcomer, schedule.id), timeout_s=30)
        schedule.end()
        assert run["state_type"] == "COMPLETED", run["state"]
        assert run["auto_scheduled"]
        page.reload()
        page.get_by_text("retrain digits pairflow demo").first.wait_for()
        browser.photograph(page, pictures, "7-scheduled-runs")

    @staticmethod
    def _active(person: User, schedule_id: str) -> bool:
        known: dict[str, Any] = {each["id"]: each for each in person.deployment("retrain")["schedules"]}
        return bool(known[schedule_id]["active"])


@pytest.fixture(scope="module")
def client(newcomer: User) -> Iterator[MlflowClient]:
    """This person's notebook."""
    with newcomer.mlflow_client() as client:
        yield client


@pytest.fixture(scope="module")
def experiment(client: MlflowClient) -> str:
    (found,) = (each for each in client.search_experiments() if each.name == "pairflow-digits")
    return str(found.experiment_id)


class TestInspect:
    def test_a_link_of_the_runs_page_leads_to_mlflows(
        self, newcomer: User, page: "Page", pictures: Path, experiment: str
    ) -> None:
        artifacts = newcomer.ask("artifacts/filter", {"sort": "CREATED_DESC"})
        texts = [str(each["data"]) for each in artifacts if each["type"] == "markdown"]
        links = {
            f"{newcomer.mlflow}{part.partition(')')[0]}"
            for text in texts
            for part in text.split(f"({newcomer.mlflow}")[1:]
        }
        assert links
        assert all("workflowType=machine_learning" in each for each in links)
        page.goto(next(each for each in sorted(links) if f"/experiments/{experiment}/runs/" in each))
        page.get_by_text("Metrics").first.wait_for()
        browser.photograph(page, pictures, "8-mlflow-run")

    def test_scores_stand_side_by_side(self, newcomer: User, page: "Page", pictures: Path, experiment: str) -> None:
        page.goto(page_address.experiment(experiment, pages=newcomer.mlflow))
        page.get_by_text("evaluate digits pairflow").first.wait_for()
        page.get_by_text(f"{_FRECHET}.steps_1").first.wait_for()
        browser.photograph(page, pictures, "9-mlflow-table")

    def test_two_runs_are_compared(
        self, newcomer: User, page: "Page", pictures: Path, client: MlflowClient, experiment: str
    ) -> None:
        runs = client.search_runs([experiment], "tags.`pairflow.stage` = 'train'", max_results=2)
        ids = ",".join(f'"{each.info.run_id}"' for each in runs)
        page.goto(f'{newcomer.mlflow}/#/compare-runs?runs=[{ids}]&experiments=["{experiment}"]')
        page.get_by_text(f"{_FRECHET}.steps_1").first.wait_for()
        browser.photograph(page, pictures, "10-mlflow-compare")

    def test_a_registered_model(self, newcomer: User, page: "Page", pictures: Path, client: MlflowClient) -> None:
        champion = client.get_model_version_by_alias("pairflow-digits", "champion")
        page.goto(f"{newcomer.mlflow}/#/models/pairflow-digits/versions/{champion.version}")
        page.get_by_text("pairflow-digits").first.wait_for()
        browser.photograph(page, pictures, "11-mlflow-model")

    def test_the_report(self, newcomer: User, page: "Page", pictures: Path) -> None:
        reports = list(newcomer.home.glob("reports/*/report.html"))  # the pipeline's, and those of the retraining
        report = next(each for each in reports if "Assigned" in each.read_text(encoding="utf-8"))
        for width in (1400, 400):
            page.set_viewport_size({"width": width, "height": 1600})
            page.goto(report.as_uri())
            page.get_by_text("At 1 step").first.wait_for()
            browser.photograph(page, pictures, f"12-report-{width}")
            assert page.evaluate("document.documentElement.scrollWidth") <= width
