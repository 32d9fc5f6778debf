"""An MLflow server of a few lines that remembers what it is told, and fails as it is told to."""

from __future__ import annotations

import contextlib
import json
import threading
import time
import uuid
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlparse

API = "/api/2.0/mlflow/"
ARTIFACTS = "/api/2.0/mlflow-artifacts/artifacts"


class FakeMlflow:
    """A tracking server on a port of this machine.

    Attributes:
        runs: by id, the run's info, tags, params and metrics.
        artifacts: the content of every file, by its path.
        requests: the method and path of every request so far, but for those to `/health`.
        fault: gives a status to answer a path with, or None to answer as usual. It may wait.
    """

    def __init__(self, port: int = 0) -> None:
        self.runs: dict[str, dict[str, Any]] = {}
        self.artifacts: dict[str, bytes] = {}
        self.experiment_tags: dict[str, str] = {}
        self.requests: list[str] = []
        self.fault: Callable[[str], int | None] = lambda path: None
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *arguments: Any) -> None:
                pass

            def answer(self) -> None:
                fake.answer(self)

            do_GET = do_POST = do_PUT = do_PATCH = answer  # noqa: N815 - names of http.server

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        self.uri = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        """Refuse connections from now on."""
        self._server.shutdown()
        self._server.server_close()

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        """Answer one request."""
        url = urlparse(handler.path)
        body = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        if url.path != "/health":
            self.requests.append(f"{handler.command} {url.path}")
        status = self.fault(url.path)
        content: Any = {}
        if status is None:
            status = 200
            if url.path.startswith(API):
                query = {key: values[0] for key, values in parse_qs(url.query).items()}
                content = self.api(url.path.removeprefix(API), json.loads(body or "{}") | query)
            elif url.path.startswith(ARTIFACTS) and handler.command == "PUT":
                self.artifacts[url.path.removeprefix(f"{ARTIFACTS}/")] = body
            elif url.path.startswith(ARTIFACTS):
                content = self.listed(parse_qs(url.query)["path"][0])
        answer = json.dumps(content).encode()
        with contextlib.suppress(OSError):  # who asked may have given up
            self.send(handler, status, answer)

    def send(self, handler: BaseHTTPRequestHandler, status: int, answer: bytes) -> None:
        """Send an answer."""
        handler.send_response(status)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Content-Length", str(len(answer)))
        handler.end_headers()
        handler.wfile.write(answer)

    def listed(self, folder: str) -> dict[str, Any]:
        """What is in a folder of artifacts."""
        inside = [
            path.removeprefix(f"{folder}/")
            for path in self.artifacts
            if path.startswith(f"{folder}/")
        ]
        names = {path.partition("/")[0]: "/" in path for path in inside}
        return {"files": [{"path": name, "is_dir": is_dir} for name, is_dir in names.items()]}

    def api(self, path: str, given: dict[str, Any]) -> dict[str, Any]:
        """Do what MLflow's call of this name does."""
        if path == "runs/create":
            run_id = uuid.uuid4().hex
            self.runs[run_id] = {
                "name": given["run_name"],
                "status": "RUNNING",
                "tags": {tag["key"]: tag["value"] for tag in given.get("tags", ())},
                "params": {},
                "metrics": [],
            }
            return {"run": self.run(run_id)}
        if path == "runs/search":
            return {"runs": [self.run(run_id) for run_id in self.runs]}
        if path.startswith("experiments/get"):
            tags = [{"key": key, "value": value} for key, value in self.experiment_tags.items()]
            return {"experiment": {"experiment_id": "7", "name": "seven", "tags": tags}}
        if path == "experiments/set-experiment-tag":
            self.experiment_tags[given["key"]] = given["value"]
            return {}
        run = self.runs[given["run_id"]]
        if path == "runs/update":
            run["status"] = given["status"]
        elif path == "runs/set-tag":
            run["tags"][given["key"]] = given["value"]
        elif path == "runs/log-batch":
            run["tags"] |= {tag["key"]: tag["value"] for tag in given.get("tags", ())}
            run["params"] |= {param["key"]: param["value"] for param in given.get("params", ())}
            run["metrics"] += given.get("metrics", ())
        return {"run": self.run(given["run_id"]), "run_info": {}}

    def run(self, run_id: str) -> dict[str, Any]:
        """A run as MLflow would give it."""
        run = self.runs[run_id]
        latest = {metric["key"]: metric for metric in run["metrics"]}
        return {
            "info": {
                "run_id": run_id,
                "run_name": run["name"],
                "experiment_id": "7",
                "status": run["status"],
                "artifact_uri": f"mlflow-artifacts:/7/{run_id}/artifacts",
            },
            "data": {
                "tags": [{"key": key, "value": value} for key, value in run["tags"].items()],
                "params": [{"key": key, "value": value} for key, value in run["params"].items()],
                "metrics": list(latest.values()),
            },
        }

    def steps(self, metric: str = "gradcheck/worst_score") -> list[int]:
        """The steps at which a metric was logged, over all runs."""
        logged = (entry for run in self.runs.values() for entry in run["metrics"])
        return [int(entry.get("step", 0)) for entry in logged if entry["key"] == metric]

    def wait_for(self, what: Callable[[], Any], seconds: float = 30) -> Any:
        """Wait until something is true, and give it."""
        limit = time.monotonic() + seconds
        while not (found := what()) and time.monotonic() < limit:
            time.sleep(0.02)
        return found
