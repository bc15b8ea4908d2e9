"""The Kubernetes manifests are valid, agree with each other, with the image and with the settings."""

import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from service.settings import Settings, load_settings, variables
from tests.unit.test_dockerfile import CONFIGS

ROOT = Path(__file__).resolve().parents[2]
BASE = ROOT / "k8s" / "base"
DOCS = [ROOT / "docs" / name for name in ("deployment.md", "receipts.md")]
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
OLDEST = "1.30"
"""The first Kubernetes whose preStop can sleep without a feature gate."""

UNITS = {"": 1, "m": 1e-3, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30}


def read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return content


FILES = sorted(path for path in BASE.glob("*.yaml") if path.name != "kustomization.yaml")
KUSTOMIZATION = read(BASE / "kustomization.yaml")
MANIFESTS = {manifest["kind"]: manifest for manifest in map(read, FILES)}
DEPLOYMENT = MANIFESTS["Deployment"]["spec"]
POD = DEPLOYMENT["template"]["spec"]
(SERVER,) = POD["containers"]


def quantity(text: str) -> float:
    """A Kubernetes quantity as a number of cores or bytes."""
    found = re.fullmatch(r"([\d.]+)(m|Ki|Mi|Gi|)", text)
    assert found is not None, text
    return float(found[1]) * UNITS[found[2]]


def environment() -> dict[str, str]:
    return {entry["name"]: entry["value"] for entry in SERVER["env"]}


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> Settings:
    """What the server reads from the manifest."""
    for name, value in environment().items():
        monkeypatch.setenv(name, value)
    return load_settings()


def test_kustomization_lists_every_manifest() -> None:
    assert sorted(KUSTOMIZATION["resources"]) == [path.name for path in FILES]
    assert set(MANIFESTS) == {
        "Deployment",
        "Service",
        "HorizontalPodAutoscaler",
        "ServiceAccount",
        "PodDisruptionBudget",
        "NetworkPolicy",
    }


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
@pytest.mark.parametrize("version", [OLDEST, kubernetes_validate.latest_version()])
def test_manifest_is_valid(path: Path, version: str) -> None:
    kubernetes_validate.validate(read(path), version, strict=True)


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="needs kubectl")
def test_kustomize_builds_every_manifest() -> None:
    built = subprocess.run(["kubectl", "kustomize", str(BASE)], check=True, capture_output=True)
    assert {d["kind"]: d for d in yaml.safe_load_all(built.stdout)} == MANIFESTS


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="needs kubectl")
def test_the_documented_overlay_mounts_keys_and_leads_to_a_collector(tmp_path: Path) -> None:
    content: dict[str, Any] = {}
    pages = "".join(page.read_text(encoding="utf-8") for page in DOCS)
    for block in re.findall(r"```yaml\n(.*?)```", pages, re.DOTALL):
        for name, value in yaml.safe_load(block).items():
            content[name] = content.get(name, []) + value if isinstance(value, list) else value
    shutil.copytree(ROOT / "k8s", tmp_path / "deepfake-detect" / "k8s")
    overlay = tmp_path / "overlay" / "kustomization.yaml"
    overlay.parent.mkdir()
    overlay.write_text(yaml.safe_dump(content))
    built = subprocess.run(["kubectl", "kustomize", overlay.parent], check=True, capture_output=True)
    kinds = {d["kind"]: d for d in yaml.safe_load_all(built.stdout)}
    manifest, policy = kinds["Deployment"], kinds["NetworkPolicy"]
    for changed in (manifest, policy):
        kubernetes_validate.validate(changed, OLDEST, strict=True)
    assert [port["port"] for way in policy["spec"]["egress"] for port in way["ports"]] == [4318]
    pod = manifest["spec"]["template"]["spec"]
    (server,) = pod["containers"]
    for setting, secret in (
        ("DETECTOR_API_KEYS_FILE", {"secretName": "deepfake-detect-keys"}),
        ("DETECTOR_SIGNING_KEY_FILE", {"secretName": "deepfake-detect-signing", "defaultMode": 0o440}),
    ):
        (file,) = (Path(e["value"]) for e in server["env"] if e["name"] == setting)
        (mounted,) = (m["name"] for m in server["volumeMounts"] if m["mountPath"] == str(file.parent))
        assert [v["secret"] for v in pod["volumes"] if v["name"] == mounted] == [secret]


def test_probes_ask_different_questions() -> None:
    startup, ready, live = (SERVER[f"{name}Probe"] for name in ("startup", "readiness", "liveness"))
    assert startup["httpGet"]["path"] == ready["httpGet"]["path"] == "/readyz"
    assert live["httpGet"]["path"] == "/livez"
    assert len({str(probe) for probe in (startup, ready, live)}) == 3


def test_probes_budgets_fit_their_purpose() -> None:
    startup, ready, live = (
        probe["periodSeconds"] * probe["failureThreshold"]
        for probe in (SERVER[f"{name}Probe"] for name in ("startup", "readiness", "liveness"))
    )
    assert startup >= 120, "loading and warming takes its time on a slow node"
    assert ready < live, "a pod leaves the balancer before it is killed"


def test_image_is_a_version() -> None:
    name, _, tag = SERVER["image"].partition(":")
    assert name == "deepfake-detect"
    assert tag == VERSION
    assert DEPLOYMENT["template"]["metadata"]["labels"]["app.kubernetes.io/version"] == VERSION


@pytest.mark.parametrize("resource", ["cpu", "memory", "ephemeral-storage"])
def test_resources_are_requested_and_limited(resource: str) -> None:
    wanted, limit = (quantity(SERVER["resources"][kind][resource]) for kind in ("requests", "limits"))
    assert 0 < wanted <= limit


def test_every_setting_exists_and_is_accepted(settings: Settings) -> None:
    assert set(environment()) <= set(variables())
    assert settings.host == "0.0.0.0"


def test_service_links_set_no_unknown_settings() -> None:
    assert POD["enableServiceLinks"] is False


def test_scratch_holds_the_largest_uploads_in_flight(settings: Settings) -> None:
    scratch = {mount["name"]: mount["mountPath"] for mount in SERVER["volumeMounts"]}
    (volume,) = POD["volumes"]
    assert scratch[volume["name"]] == str(settings.scratch_dir)
    assert volume["emptyDir"]["medium"] == "Memory"
    assert quantity(volume["emptyDir"]["sizeLimit"]) >= settings.max_in_flight * settings.max_upload_bytes


def test_memory_holds_scratch_and_decoders_at_their_limits(settings: Settings) -> None:
    (volume,) = POD["volumes"]
    taken = quantity(volume["emptyDir"]["sizeLimit"]) + settings.decoders * settings.decode_memory_bytes
    assert quantity(SERVER["resources"]["limits"]["memory"]) - taken >= quantity("1Gi")


def test_requests_in_flight_can_finish_before_the_pod_is_killed(settings: Settings) -> None:
    sleep = SERVER["lifecycle"]["preStop"]["sleep"]["seconds"]
    ready = SERVER["readinessProbe"]
    assert sleep >= 5, "endpoints take some seconds to forget a pod"
    assert POD["terminationGracePeriodSeconds"] >= sleep + settings.shutdown_grace_s + 5
    assert ready["periodSeconds"] * ready["failureThreshold"] < POD["terminationGracePeriodSeconds"]


def test_pod_meets_the_restricted_standard() -> None:
    """https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted; a read-only root."""
    context = POD["securityContext"]
    assert context["runAsNonRoot"] is True
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    assert SERVER["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(POD)
    assert all(set(volume) == {"name", "emptyDir"} for volume in POD["volumes"])
    assert all("hostPort" not in port for port in SERVER["ports"])


def test_pod_runs_as_the_user_of_the_image() -> None:
    context = POD["securityContext"]
    assert CONFIGS["cpu"].user == (context["runAsUser"], context["runAsGroup"])


def test_pod_has_no_way_into_the_cluster() -> None:
    account = MANIFESTS["ServiceAccount"]
    assert POD["serviceAccountName"] == account["metadata"]["name"]
    assert POD["automountServiceAccountToken"] is account["automountServiceAccountToken"] is False


def test_selectors_match_the_pods() -> None:
    labels = DEPLOYMENT["template"]["metadata"]["labels"]
    spread = POD["topologySpreadConstraints"]
    selectors = [
        DEPLOYMENT["selector"]["matchLabels"],
        MANIFESTS["Service"]["spec"]["selector"],
        MANIFESTS["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"],
        MANIFESTS["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"],
        *(constraint["labelSelector"]["matchLabels"] for constraint in spread),
    ]
    assert all(selector and selector.items() <= labels.items() for selector in selectors)
    assert [c["topologyKey"] for c in spread] == ["kubernetes.io/hostname", "topology.kubernetes.io/zone"]
    assert all("app.kubernetes.io/version" not in selector for selector in selectors), (
        "a selector never changes"
    )


def test_ports_lead_to_the_server(settings: Settings) -> None:
    ports = {port["name"]: port["containerPort"] for port in SERVER["ports"]}
    (service,) = MANIFESTS["Service"]["spec"]["ports"]
    asked = {service["targetPort"]} | {
        SERVER[f"{name}Probe"]["httpGet"]["port"] for name in ("startup", "readiness", "liveness")
    }
    assert {ports[name] for name in asked} == {settings.port}


def test_autoscaler_scales_the_deployment_and_alone_sets_its_size() -> None:
    target = MANIFESTS["HorizontalPodAutoscaler"]["spec"]
    deployment = MANIFESTS["Deployment"]
    assert target["scaleTargetRef"] == {
        "apiVersion": deployment["apiVersion"],
        "kind": "Deployment",
        "name": deployment["metadata"]["name"],
    }
    assert "replicas" not in DEPLOYMENT
    assert 2 <= target["minReplicas"] < target["maxReplicas"]
