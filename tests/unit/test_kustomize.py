"""Every overlay with every component builds, is valid, and keeps what the base promises."""

import functools
import itertools
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import kubernetes_validate
import pytest
import typer
import yaml

from batch.clips import Shard
from batch.scorer import CLIPS_PER_DECODER
from cli.batch import TEMPORARY
from cli.main import app
from cli.output import ERROR
from service.settings import Settings, load_settings, variables
from service.upload import FRAMING_BYTES
from tests.unit.test_dockerfile import environment as baked
from tests.unit.test_dockerfile import final
from tests.unit.test_k8s import OLDEST, ROOT, VERSION, quantity

K8S = ROOT / "k8s"
Manifest = dict[str, Any]
CORE = {"v1", "apps/v1", "autoscaling/v2", "networking.k8s.io/v1", "policy/v1"}
"""What kubernetes-validate knows; all else are custom resources."""
MIB = 2**20
PLACES = ("overlays", "components", "examples")


def kustomize() -> list[str] | None:
    """The command that builds a folder, None where there is none that knows components."""
    if shutil.which("kustomize"):
        return ["kustomize", "build"]
    if not shutil.which("kubectl"):
        return None
    told = subprocess.run(["kubectl", "version", "--client"], capture_output=True, text=True, check=False)
    # kubectl tells since 1.24 which kustomize it has; those before 1.21 know no components.
    return ["kubectl", "kustomize"] if "Kustomize Version" in told.stdout else None


KUSTOMIZE = kustomize()
needs_kustomize = pytest.mark.skipif(KUSTOMIZE is None, reason="needs kustomize, or kubectl 1.24 or newer")


def names(place: str) -> list[str]:
    """The kustomizations below a folder of k8s/."""
    return sorted(path.parent.name for path in (K8S / place).glob("*/kustomization.yaml"))


OVERLAYS, COMPONENTS = names("overlays"), names("components")
KSERVE = yaml.safe_load((K8S / "examples" / "kserve" / "inferenceservice.yaml").read_text(encoding="utf-8"))
BULK = {
    manifest["kind"]: manifest
    for path in (K8S / "examples" / "bulk-job").glob("*.yaml")
    for manifest in yaml.safe_load_all(path.read_text(encoding="utf-8"))
}
FILES = [path for path in sorted(K8S.rglob("*.yaml")) if path.name != "kustomization.yaml"]
COMBINATIONS = [
    (overlay, components)
    for overlay in OVERLAYS
    for components in [
        (),
        *((component,) for component in COMPONENTS),
        *itertools.combinations(COMPONENTS, 2),
        tuple(COMPONENTS),
        tuple(reversed(COMPONENTS)),
    ]
]
IDS = ["+".join([overlay, *components]) for overlay, components in COMBINATIONS]


@functools.cache
def built(overlay: str, components: Sequence[str]) -> list[Manifest]:
    """What an overlay of somebody's own gives, which names one of ours and components."""
    assert KUSTOMIZE is not None
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made).resolve()
        content = {
            "apiVersion": "kustomize.config.k8s.io/v1beta1",
            "kind": "Kustomization",
            "namespace": "elsewhere",
            "resources": [os.path.relpath(K8S / "overlays" / overlay, folder)],
            "components": [os.path.relpath(K8S / "components" / name, folder) for name in components],
        }
        (folder / "kustomization.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
        given = subprocess.run([*KUSTOMIZE, folder], check=True, capture_output=True)
    return list(yaml.safe_load_all(given.stdout))


def of_kind(manifests: Sequence[Manifest], kind: str) -> Manifest:
    (manifest,) = (m for m in manifests if m["kind"] == kind)
    return manifest


def pod_of(manifest: Manifest) -> Manifest | None:
    """The pod that a manifest, or a patch of one, describes."""
    if manifest["kind"] == "InferenceService":
        return dict(manifest["spec"]["predictor"])
    pod: Manifest | None = manifest.get("spec", {}).get("template", {}).get("spec")
    return pod


def containers_of(pod: Manifest) -> list[Manifest]:
    """Those that run before the server, then the server."""
    return [*pod.get("initContainers", []), *pod["containers"]]


def environment(container: Manifest) -> dict[str, str]:
    return {entry["name"]: entry["value"] for entry in container.get("env", [])}


def settings_of(pod: Manifest, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """What the server reads from the manifest."""
    (server,) = pod["containers"]
    for name, value in environment(server).items():
        monkeypatch.setenv(name, value)
    return load_settings()


def volumes_of(pod: Manifest, *, memory: bool) -> float:
    """Bytes that the volumes may hold, in memory or on disk."""
    directories = [volume["emptyDir"] for volume in pod["volumes"]]
    return sum(quantity(d["sizeLimit"]) for d in directories if (d.get("medium") == "Memory") is memory)


def check_pod(pod: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    """What every pod that serves has to keep, however it was put together."""
    (server,) = pod["containers"]
    settings = settings_of(pod, monkeypatch)
    limits = server["resources"]["limits"]
    taken = volumes_of(pod, memory=True) + settings.decoders * settings.decode_memory_bytes
    assert quantity(limits["memory"]) - taken >= 2**30, "the rest of the server has 1 GiB"
    assert quantity(limits["ephemeral-storage"]) >= volumes_of(pod, memory=False) + 64 * MIB
    assert volumes_of(pod, memory=True) >= settings.max_in_flight * settings.max_upload_bytes
    sleep = server["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod["terminationGracePeriodSeconds"] >= sleep + settings.shutdown_grace_s + 5
    context = pod["securityContext"]
    assert context["runAsNonRoot"] is True
    assert final("cpu", "USER") == [f"{context['runAsUser']}:{context['runAsGroup']}"]
    assert pod["automountServiceAccountToken"] is pod["enableServiceLinks"] is False
    for container in containers_of(pod):
        check_container(container)


def check_container(container: Manifest) -> None:
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    for resource in ("cpu", "memory"):
        wanted, limit = (quantity(container["resources"][kind][resource]) for kind in ("requests", "limits"))
        assert 0 < wanted <= limit


@needs_kustomize
@pytest.mark.parametrize(("overlay", "components"), COMBINATIONS, ids=IDS)
def test_combination_builds_and_is_valid(overlay: str, components: Sequence[str]) -> None:
    manifests = built(overlay, tuple(components))
    for manifest in manifests:
        if manifest["apiVersion"] in CORE:
            kubernetes_validate.validate(manifest, OLDEST, strict=True)
    assert {manifest["metadata"]["namespace"] for manifest in manifests} == {"elsewhere"}


@needs_kustomize
@pytest.mark.parametrize(("overlay", "components"), COMBINATIONS, ids=IDS)
def test_pod_of_a_combination_keeps_the_policies(
    overlay: str, components: Sequence[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    deployment = of_kind(built(overlay, tuple(components)), "Deployment")
    pod = pod_of(deployment)
    assert pod is not None
    check_pod(pod, monkeypatch)
    mounted = {m["name"] for container in containers_of(pod) for m in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in pod["volumes"]}


@needs_kustomize
@pytest.mark.parametrize(("overlay", "components"), COMBINATIONS, ids=IDS)
def test_one_scaler_sets_the_size(overlay: str, components: Sequence[str]) -> None:
    manifests = built(overlay, tuple(components))
    scalers = [m["kind"] for m in manifests if m["kind"] in ("HorizontalPodAutoscaler", "ScaledObject")]
    assert scalers == ["ScaledObject" if "keda" in components else "HorizontalPodAutoscaler"]
    assert "replicas" not in of_kind(manifests, "Deployment")["spec"]


@needs_kustomize
@pytest.mark.parametrize("example", names("examples"))
def test_example_builds(example: str) -> None:
    assert KUSTOMIZE is not None
    subprocess.run([*KUSTOMIZE, K8S / "examples" / example], check=True, capture_output=True)


def test_kserve_runs_the_container_of_the_base(monkeypatch: pytest.MonkeyPatch) -> None:
    predictor = pod_of(KSERVE)
    assert predictor is not None
    check_pod(predictor, monkeypatch)
    base = pod_of(yaml.safe_load((K8S / "base" / "deployment.yaml").read_text(encoding="utf-8")))
    assert base is not None
    (server,), (served) = base["containers"], predictor["containers"][0]
    assert served == server | {"name": "kserve-container"}
    assert predictor["volumes"] == base["volumes"]
    assert predictor["timeout"] > load_settings().request_timeout_s


@pytest.mark.parametrize("kind", ["Job", "NetworkPolicy"])
@pytest.mark.parametrize("version", [OLDEST, kubernetes_validate.latest_version()])
def test_bulk_job_is_valid(kind: str, version: str) -> None:
    kubernetes_validate.validate(BULK[kind], version, strict=True)


def test_each_index_of_the_bulk_job_scores_one_share() -> None:
    spec = BULK["Job"]["spec"]
    (container,) = spec["template"]["spec"]["containers"]
    assert spec["completionMode"] == "Indexed"
    assert 0 < spec["parallelism"] <= spec["completions"]
    expanded = [
        [argument.replace("$(JOB_COMPLETION_INDEX)", str(index)) for argument in container["args"]]
        for index in range(spec["completions"])
    ]
    command = typer.main.get_command(app)
    assert isinstance(command, typer.core.TyperGroup)
    shards = []
    for name, *arguments in expanded:
        given = command.commands[name].make_context(name, arguments).params
        shards.append(Shard.parse(given["shard"]))
        mounted = {m["mountPath"]: m.get("readOnly", False) for m in container["volumeMounts"]}
        assert [mounted[path] for path in given["inputs"]] == [True]
        assert mounted[str(given["results"])] is False
    assert shards == [Shard(index, spec["completions"]) for index in range(spec["completions"])]


def test_the_bulk_job_tries_again_what_another_pod_could_mend() -> None:
    spec = BULK["Job"]["spec"]
    failed, disrupted = spec["podFailurePolicy"]["rules"]
    assert spec["template"]["spec"]["restartPolicy"] == "Never", "which a policy for failures needs"
    assert spec["backoffLimitPerIndex"] > 0
    assert failed["action"] == "FailJob"
    assert set(failed["onExitCodes"]["values"]) == {click.UsageError.exit_code, ERROR}
    assert TEMPORARY not in failed["onExitCodes"]["values"]
    (condition,) = disrupted["onPodConditions"]
    assert (disrupted["action"], condition["type"]) == ("Ignore", "DisruptionTarget")


def test_pod_of_the_bulk_job_keeps_the_policies(monkeypatch: pytest.MonkeyPatch) -> None:
    pod = pod_of(BULK["Job"])
    base = pod_of(yaml.safe_load((K8S / "base" / "deployment.yaml").read_text(encoding="utf-8")))
    assert pod is not None
    assert base is not None
    (container,) = pod["containers"]
    check_container(container)
    settings = settings_of(pod, monkeypatch)
    limits, scratch = container["resources"]["limits"], pod["volumes"][0]["emptyDir"]
    taken = quantity(scratch["sizeLimit"]) + settings.decoders * settings.decode_memory_bytes
    assert scratch["medium"] == "Memory"
    assert quantity(limits["memory"]) - taken >= 2**30
    in_flight = min(settings.max_in_flight, CLIPS_PER_DECODER * settings.decoders)
    assert quantity(scratch["sizeLimit"]) >= in_flight * settings.max_upload_bytes
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert mounts["scratch"] == str(settings.scratch_dir)
    assert set(mounts) == {volume["name"] for volume in pod["volumes"]}
    assert pod["securityContext"].items() >= base["securityContext"].items()
    assert pod["automountServiceAccountToken"] is pod["enableServiceLinks"] is False


def test_an_archive_is_only_read_and_keeps_its_owner() -> None:
    """Without readOnly in the claim, the kubelet gives every file of it to the pod's fsGroup."""
    pod = pod_of(BULK["Job"])
    assert pod is not None
    (claim,) = (v["persistentVolumeClaim"] for v in pod["volumes"] if v["name"] == "archive")
    assert claim["readOnly"] is True


def test_the_bulk_job_has_no_network_and_gets_no_requests() -> None:
    policy, labels = BULK["NetworkPolicy"]["spec"], BULK["Job"]["spec"]["template"]["metadata"]["labels"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert policy["ingress"] == policy["egress"] == []
    assert policy["podSelector"]["matchLabels"].items() <= labels.items()
    service = yaml.safe_load((K8S / "base" / "service.yaml").read_text(encoding="utf-8"))
    assert not service["spec"]["selector"].items() <= labels.items()


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(K8S)))
def test_file_names_versions_and_settings_that_exist_and_no_way_to_the_host(path: Path) -> None:
    """Needs no kustomize: holds for manifests and for patches."""
    for manifest in yaml.safe_load_all(path.read_text(encoding="utf-8")):
        pod = pod_of(manifest)
        if pod is None:
            continue
        containers = containers_of(pod)
        images = [container["image"] for container in containers if "image" in container]
        assert all(image.endswith(f":{VERSION}") for image in images)
        assert {name for container in containers for name in environment(container)} <= set(variables())
        kinds = {kind for volume in pod.get("volumes", []) for kind in volume} - {"name"}
        assert kinds <= {"emptyDir"} | ({"persistentVolumeClaim"} if manifest["kind"] == "Job" else set())
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
        assert all("hostPort" not in port for container in containers for port in container.get("ports", []))
        for container in pod.get("initContainers", []):
            check_container(container)


@pytest.mark.parametrize("place", PLACES)
def test_kustomization_lists_every_file_of_its_folder(place: str) -> None:
    for name in names(place):
        folder = K8S / place / name
        listed = yaml.safe_load((folder / "kustomization.yaml").read_text(encoding="utf-8"))
        patches = [patch["path"] for patch in listed.get("patches", []) if "path" in patch]
        resources = [resource for resource in listed.get("resources", []) if resource.endswith(".yaml")]
        found = {path.name for path in folder.glob("*.yaml")} - {"kustomization.yaml"}
        assert {*patches, *resources} == found, name


def test_gpu_overlay_asks_for_a_gpu_and_for_nothing_less() -> None:
    folder = K8S / "overlays" / "gpu"
    (image,) = yaml.safe_load((folder / "kustomization.yaml").read_text(encoding="utf-8"))["images"]
    assert image == {"name": "deepfake-detect", "newTag": f"{VERSION}-gpu"}
    pod = pod_of(yaml.safe_load((folder / "deployment.yaml").read_text(encoding="utf-8")))
    assert pod is not None
    (server,) = pod["containers"]
    assert environment(server)["DETECTOR_PROVIDER"] == baked("gpu")["DETECTOR_PROVIDER"] == "require"
    assert {server["resources"][kind]["nvidia.com/gpu"] for kind in ("requests", "limits")} == {"1"}
    assert [t["key"] for t in pod["tolerations"]] == ["nvidia.com/gpu"]
    assert pod["nodeSelector"]


def test_insightface_states_that_the_licence_is_met(monkeypatch: pytest.MonkeyPatch) -> None:
    path = K8S / "components" / "insightface" / "deployment.yaml"
    pod = pod_of(yaml.safe_load(path.read_text(encoding="utf-8")))
    assert pod is not None
    settings = settings_of(pod, monkeypatch)
    assert settings.face_detector == "insightface"
    assert settings.accept_insightface_license
    (server,) = pod["containers"]
    assert [mount["mountPath"] for mount in server["volumeMounts"]] == [str(settings.face_model)]


def nginx_bytes(text: str) -> int:
    return int(text.removesuffix("m")) * MIB


def sizes() -> dict[str, float]:
    """What each way in lets through, in bytes."""
    annotations = component("ingress", "ingress.yaml")["metadata"]["annotations"]
    envoy = component("gateway-envoy", "backendtrafficpolicy.yaml")["spec"]["requestBuffer"]["limit"]
    nginx = component("gateway-nginx", "clientsettingspolicy.yaml")["spec"]["body"]["maxSize"]
    return {
        "ingress": nginx_bytes(annotations["nginx.ingress.kubernetes.io/proxy-body-size"]),
        "gateway-envoy": quantity(envoy),
        "gateway-nginx": nginx_bytes(nginx),
    }


def component(name: str, file: str) -> Manifest:
    manifest: Manifest = yaml.safe_load((K8S / "components" / name / file).read_text(encoding="utf-8"))
    return manifest


@pytest.fixture
def base_settings(monkeypatch: pytest.MonkeyPatch) -> Settings:
    pod = pod_of(yaml.safe_load((K8S / "base" / "deployment.yaml").read_text(encoding="utf-8")))
    assert pod is not None
    return settings_of(pod, monkeypatch)


@pytest.mark.parametrize("way", ["ingress", "gateway-envoy", "gateway-nginx"])
def test_the_largest_upload_comes_through(way: str, base_settings: Settings) -> None:
    assert sizes()[way] >= base_settings.max_upload_bytes + FRAMING_BYTES


def test_the_server_has_the_last_word_on_time(base_settings: Settings) -> None:
    annotations = component("ingress", "ingress.yaml")["metadata"]["annotations"]
    (rule,) = component("gateway", "httproute.yaml")["spec"]["rules"]
    seconds = [
        annotations["nginx.ingress.kubernetes.io/proxy-read-timeout"],
        *(timeout.removesuffix("s") for timeout in rule["timeouts"].values()),
    ]
    assert all(int(s) > base_settings.request_timeout_s for s in seconds)
    timeout = component("gateway-nginx", "clientsettingspolicy.yaml")["spec"]["body"]["timeout"]
    assert int(timeout.removesuffix("s")) >= base_settings.upload_timeout_s


def test_buffering_keeps_slow_uploads_out_and_lets_events_through() -> None:
    annotations = component("ingress", "ingress.yaml")["metadata"]["annotations"]
    assert annotations["nginx.ingress.kubernetes.io/proxy-request-buffering"] == "on"
    assert annotations["nginx.ingress.kubernetes.io/proxy-buffering"] == "off"


def open_paths() -> dict[str, list[tuple[str, bool]]]:
    """Path and whether it is a prefix, of each way in."""
    (rule,) = component("ingress", "ingress.yaml")["spec"]["rules"]
    (route,) = component("gateway", "httproute.yaml")["spec"]["rules"]
    return {
        "ingress": [(path["path"], path["pathType"] == "Prefix") for path in rule["http"]["paths"]],
        "gateway": [
            (match["path"]["value"], match["path"]["type"] == "PathPrefix") for match in route["matches"]
        ],
    }


@pytest.mark.parametrize("way", ["ingress", "gateway"])
def test_what_is_for_clients_is_reached_and_what_is_for_the_cluster_is_not(way: str) -> None:
    paths = json.loads((ROOT / "docs" / "openapi.json").read_text(encoding="utf-8"))["paths"]

    def reached(path: str) -> bool:
        return any(
            path == known or (prefix and path.startswith(f"{known}/")) for known, prefix in open_paths()[way]
        )

    inside = re.compile(r"/(livez|readyz|metrics|v2/.*)")
    assert all(reached(path) is (inside.fullmatch(path) is None) for path in paths)
    assert all(reached(path) for path in ("/", "/docs", "/openapi.json"))


def test_scalers_rise_fast_and_fall_slowly() -> None:
    autoscaler = yaml.safe_load((K8S / "base" / "hpa.yaml").read_text(encoding="utf-8"))["spec"]
    scaled = component("keda", "scaledobject.yaml")["spec"]
    behavior = autoscaler["behavior"]
    assert scaled["advanced"]["horizontalPodAutoscalerConfig"]["behavior"] == behavior
    assert scaled["minReplicaCount"] == autoscaler["minReplicas"]
    assert scaled["maxReplicaCount"] == autoscaler["maxReplicas"]
    assert behavior["scaleUp"]["stabilizationWindowSeconds"] == 0
    assert behavior["scaleDown"]["stabilizationWindowSeconds"] >= 300
    assert behavior["scaleDown"]["policies"] == [{"type": "Pods", "value": 1, "periodSeconds": 60}]
    up = {policy["type"]: policy["value"] for policy in behavior["scaleUp"]["policies"]}
    assert up["Percent"] >= 100


def test_nothing_leaves_the_pod_and_one_port_is_open() -> None:
    policy = yaml.safe_load((K8S / "base" / "networkpolicy.yaml").read_text(encoding="utf-8"))["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert policy["egress"] == []
    (rule,) = policy["ingress"]
    assert rule == {"ports": [{"port": "http", "protocol": "TCP"}]}
    others = [path for path in FILES if path.parent.name not in ("base", "bulk-job")]
    assert all("NetworkPolicy" not in path.read_text(encoding="utf-8") for path in others)


def test_a_drain_takes_one_pod_at_a_time() -> None:
    budget = yaml.safe_load((K8S / "base" / "pdb.yaml").read_text(encoding="utf-8"))["spec"]
    assert budget["maxUnavailable"] == 1
    assert budget["unhealthyPodEvictionPolicy"] == "AlwaysAllow"
