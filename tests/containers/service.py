"""What a user of the service in containers does: with compose, with the pages' addresses, and by the REST API."""

import base64
import json
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import requests
import yaml

from ..ports import free_port
from .engine import Engine
from .images import ROOT, Images

PATIENCE_S = 600.0
"""No wait ends sooner: on two cores that others work on too, a server takes minutes to come."""
_PROJECT = "pairflowtests"
_ONCE = ("volumes", "setup")  # services that end


class Service:
    """The whole of compose.yaml as one project, with secrets and ports of its own."""

    def __init__(self, engine: Engine, images: Images, folder: Path) -> None:
        self.engine = engine
        prefect, mlflow, ray = (free_port() for _ in range(3))
        self.prefect, self.mlflow, self.ray = (f"http://127.0.0.1:{port}" for port in (prefect, mlflow, ray))
        self.ports = (prefect, mlflow, ray)
        self._password, self.token = (secrets.token_hex(16) for _ in range(2))
        given = {
            "POSTGRES_PASSWORD": secrets.token_hex(16),
            "PREFECT_AUTH": f"tester:{self._password}",
            "RAY_AUTH_TOKEN": self.token,
            "S3_ACCESS_KEY": secrets.token_hex(8),
            "S3_SECRET_KEY": secrets.token_hex(16),
        }
        self.secrets = [self._password, *(value for name, value in given.items() if name != "PREFECT_AUTH")]
        self._variables = given | {
            "PAIRFLOW_IMAGE": images.ours,
            "PAIRFLOW_PREFECT_PORT": str(prefect),
            "PAIRFLOW_MLFLOW_PORT": str(mlflow),
            "PAIRFLOW_RAY_PORT": str(ray),
        }
        file = ROOT / "deploy" / "compose.yaml"
        self.names = list(yaml.safe_load(file.read_text())["services"])
        override = folder / "stand-ins.yaml"
        services = {name: {"image": image} for name, image in images.stand_ins.items()}
        override.write_text(yaml.safe_dump({"version": "3.8", "services": services}))
        # The folder of the first file is where compose looks for the others that it names.
        self._files = ["-p", _PROJECT, "-f", file, *(["-f", override] if services else [])]

    def compose(self, *words: object, check: bool = True) -> str:
        """A command of compose about this project."""
        return self.engine.compose(*self._files, *words, variables=self._variables, check=check)

    def up(self) -> float:
        """Starts everything; seconds until all of it is healthy, or has done its work and ended."""
        begin = time.monotonic()
        self.compose("up", "--detach")
        self.wait_for(lambda: not self.not_ready(), or_say=lambda: f"{self.not_ready()}; {self.logs()}")
        return time.monotonic() - begin

    def container(self, name: str) -> str:
        """The id of a service's container."""
        return str(self.states()[name]["Id"])

    def states(self) -> dict[str, Any]:
        """Service -> what the daemon knows of its container."""
        containers = self.engine.docker(
            "ps", "--all", "--quiet", "--filter", f"label=com.docker.compose.project={_PROJECT}"
        ).split()
        found = self.engine.inspect(*containers)
        return {each["Config"]["Labels"]["com.docker.compose.service"]: each for each in found}

    def not_ready(self) -> dict[str, str]:
        """Service -> how it is, of those that are not as they should be."""
        states = {name: each["State"] for name, each in self.states().items()}
        told = {
            name: f"{state['Status']} {state.get('Health', {}).get('Status', '')}" for name, state in states.items()
        }
        told |= {name: "absent" for name in self.names if name not in states}
        return {
            name: text
            for name, text in told.items()
            if (text != "running healthy" and not (name in _ONCE and states.get(name, {}).get("ExitCode") == 0))
            or (text.startswith("running") and name in _ONCE)
        }

    def kill(self, name: str) -> None:
        """SIGKILL to every process of a container at once, by one within: what the engine kills it lets lie."""
        before = self.states()[name]["State"]["StartedAt"]
        self.execute(name, "sh", "-c", "kill -9 -1", check=False)
        self.wait_for(lambda: self.states()[name]["State"]["StartedAt"] != before, or_say=self.not_ready)

    def execute(self, name: str, *words: str, check: bool = True) -> str:
        """What a command within a container prints."""
        return self.engine.docker("exec", self.container(name), *words, check=check)

    def logs(self, *names: str, lines: int = 15) -> str:
        """What the services wrote last."""
        return self.compose("logs", "--no-color", "--tail", lines, *names, check=False)

    def log(self, name: str) -> list[str]:
        """All that a service wrote since its container was made."""
        return self.engine.docker("logs", self.container(name)).splitlines()

    def ask(self, path: str, body: Any = None) -> Any:
        """An answer of Prefect's API; None with a body of None is a GET."""
        return json.loads(self.get(f"{self.prefect}/api/{path}", self.credential(), body))

    def credential(self) -> str:
        """What Prefect wants in Authorization."""
        return "Basic " + base64.b64encode(f"tester:{self._password}".encode()).decode()

    def search_mlflow(self, what: Literal["experiments", "runs"], body: Any) -> list[Any]:
        """All that fit."""
        answer = json.loads(self.get(f"{self.mlflow}/api/2.0/mlflow/{what}/search", "", body))
        return list(answer.get(what, []))

    @staticmethod
    def get(url: str, authorization: str = "", body: Any = None) -> str:
        """The text of a page.

        Raises:
            requests.HTTPError: the server refuses.
        """
        headers = {"Authorization": authorization} if authorization else {}
        answer = requests.request("GET" if body is None else "POST", url, json=body, headers=headers, timeout=60)
        answer.raise_for_status()
        return str(answer.text)

    def start(self, name: str, parameters: Any) -> str:
        """Starts a deployment as its form does; the flow run's id."""
        deployment = self.ask(f"deployments/name/{name}/{name}")["id"]
        body = {"parameters": {"parameters": parameters}}
        return str(self.ask(f"deployments/{deployment}/create_flow_run", body)["id"])

    def state(self, flow_run_id: str) -> str:
        """How a run is, in Prefect's word."""
        return str(self.ask(f"flow_runs/{flow_run_id}")["state_name"])

    def retry(self, flow_run_id: str) -> None:
        """What *Retry* on a run's page does."""
        state = {"state": {"type": "SCHEDULED", "name": "AwaitingRetry"}}
        assert self.ask(f"flow_runs/{flow_run_id}/set_state", state)["status"] == "ACCEPT"

    def wait_for_state(self, flow_run_id: str, *names: str) -> str:
        """The state of these that a run comes to."""
        self.wait_for(
            lambda: self.state(flow_run_id) in names,
            or_say=lambda: f"{self.ask(f'flow_runs/{flow_run_id}')['state']} {self.told(flow_run_id)}",
        )
        return self.state(flow_run_id)

    def told(self, flow_run_id: str) -> str:
        """The log of a run, as its page shows it."""
        body = {"logs": {"flow_run_id": {"any_": [flow_run_id]}}, "sort": "TIMESTAMP_ASC", "limit": 200}
        return "\n".join(each["message"] for each in self.ask("logs/filter", body))

    def jobs(self, flow_run_id: str) -> list[str]:
        """How the Ray jobs of a run are."""
        jobs = json.loads(self.get(f"{self.ray}/api/jobs/", f"Bearer {self.token}"))
        return [each["status"] for each in jobs if (each["metadata"] or {}).get("flow_run_id") == flow_run_id]

    @staticmethod
    def wait_for(condition: Callable[[], object], *, or_say: Callable[[], object] = lambda: "") -> None:
        """Until something holds; a server that is just coming back may refuse meanwhile."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                if condition():
                    return
            except requests.RequestException:
                pass
            assert time.monotonic() < deadline, f"not within {PATIENCE_S:.0f} s; {or_say()}"
            time.sleep(0.5)
