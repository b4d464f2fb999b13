"""What the container's files say of each other and of the worker: names, ports, users, seconds."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import yaml

from tests.support.owner import PROJECT
from worker.config.environment import read_environment
from worker.config.keys import BridgeConfig

DOCKERFILE = (PROJECT / "Dockerfile").read_text("utf-8")
COMPOSE: Any = yaml.safe_load((PROJECT / "compose.yaml").read_text("utf-8"))["services"]["dreamer"]
POD: Any = next(
    each
    for each in yaml.safe_load_all((PROJECT / "deploy" / "kubernetes.yaml").read_text("utf-8"))
    if each["kind"] == "StatefulSet"
)["spec"]["template"]["spec"]
CONTAINER: Any = POD["containers"][0]
SPARE_SECONDS = 30  # for what follows after jobs in hand had their time


def pod_environment() -> dict[str, str]:
    return {each["name"]: each.get("value", "a name") for each in CONTAINER["env"]}


def copied_sources() -> Iterator[str]:
    for line in re.findall(r"^COPY (.+)$", DOCKERFILE, re.MULTILINE):
        yield from line.split()[:-1]


def test_compose_yaml_is_what_compose_takes():
    linter = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    done = subprocess.run(
        [*linter, PROJECT / "compose.yaml"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_variable_sets_a_key_that_the_worker_knows():
    image = dict(re.findall(r"\b(DREAMER_\w+)=(\S+)", DOCKERFILE))
    assert "DREAMER_METRICS" in image
    for variables in (image, pod_environment(), COMPOSE["environment"]):
        given = {name: str(value) for name, value in variables.items()}
        unknown = read_environment(given).problems
        assert not {name for name in unknown if name.startswith("DREAMER_")}
    told = (PROJECT / "docs" / "containers.md").read_text("utf-8")
    names = {name: "1" for name in re.findall(r"\bDREAMER_[A-Z_]+\b", told)}
    unknown = read_environment(names).problems
    assert not {name for name in unknown if name.startswith("DREAMER_")}


def test_a_stop_leaves_jobs_in_hand_the_time_that_the_worker_gives_them():
    compose = int(COMPOSE["stop_grace_period"].removesuffix("s"))
    assert compose >= COMPOSE["environment"]["DREAMER_STOP_TIMEOUT"] + SPARE_SECONDS
    pod = int(pod_environment()["DREAMER_STOP_TIMEOUT"])
    assert POD["terminationGracePeriodSeconds"] >= pod + SPARE_SECONDS
    default = BridgeConfig.model_fields["stop_timeout"].default
    assert f"({default} without it)" in (PROJECT / "docs" / "containers.md").read_text("utf-8")


def test_health_is_asked_where_the_image_answers():
    (port,) = re.findall(r"DREAMER_METRICS=0\.0\.0\.0:(\d+)", DOCKERFILE)
    ports = {each["name"]: each["containerPort"] for each in CONTAINER["ports"]}
    assert ports["metrics"] == int(port)
    probes = {name: CONTAINER[f"{name}Probe"]["httpGet"] for name in ("liveness", "readiness")}
    assert {probe["port"] for probe in probes.values()} == {"metrics"}
    assert (probes["liveness"]["path"], probes["readiness"]["path"]) == ("/healthz", "/readyz")
    assert re.search(r"EXPOSE .*\b" + port, DOCKERFILE)


def test_nothing_runs_as_root():
    (user,) = re.findall(r"^USER (\d+):\1$", DOCKERFILE, re.MULTILINE)
    assert f"--uid {user} " in DOCKERFILE
    pod = POD["securityContext"]
    assert pod["runAsNonRoot"]
    assert {pod["runAsUser"], pod["runAsGroup"], pod["fsGroup"]} == {int(user)}
    assert COMPOSE["read_only"]
    assert COMPOSE["cap_drop"] == ["ALL"]


def test_the_image_is_built_of_what_may_leave_the_clone():
    lines = (PROJECT / ".dockerignore").read_text("utf-8").splitlines()
    allowed = {line.removeprefix("!") for line in lines if line.startswith("!")}
    assert "*" in lines, "keys and models in a clone must stay outside"
    assert all((PROJECT / name).exists() for name in allowed)
    for source in copied_sources():
        assert source == "." or source.split("/")[0] in allowed
