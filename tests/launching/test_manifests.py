"""Manifests against the schemas of those who read them: JobSet's own, Kubernetes' of a Job, SkyPilot's of a task."""

import copy
import json
from pathlib import Path

import pytest
import yaml
from helpers.launches import RENDERED, plan, rendered

jsonschema = pytest.importorskip("jsonschema")

JOB_SETS = [file for file, (name, _, _) in RENDERED.items() if name == "k8s"]
TASKS = [file for file, (name, _, _) in RENDERED.items() if name == "skypilot"]


def closed(schema):
    """A schema in which objects have the properties that it names and no others: a typing error is one."""
    if isinstance(schema, list):
        return [closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: closed(value) for key, value in schema.items()}
    if isinstance(schema.get("properties"), dict) and schema.get("type") == "object":
        made.setdefault("additionalProperties", False)
    return made


JOB_SET = closed(json.loads((Path(__file__).parent / "jobset_schema.json").read_text()))

INDEX = "metadata.annotations['batch.kubernetes.io/job-completion-index']"
INTEGER = {"type": "integer", "minimum": 0}
TEXT = {"type": "string"}
# What SkyPilot checks of the fields that are used here: sky/utils/schemas.py (get_task_schema, get_resources_schema,
# get_storage_schema) at commit 00052dfe0d132c5ad6aa9a175572b0695f747c80, restated. Clouds are those of ALL_CLOUDS.
CLOUDS = (
    "aws|azure|gcp|ibm|lambda|scp|oci|kubernetes|runpod|vast|vsphere|cudo|fluidstack|paperspace|do|nebius|ssh"
)
RECOVERY = {
    "strategy": TEXT,
    "max_restarts_on_errors": INTEGER,
    "recover_on_exit_codes": {"type": "array", "items": {**INTEGER, "maximum": 255}, "uniqueItems": True},
}
RESOURCES = {
    "infra": {
        "type": "string",
        "pattern": rf"^(?:(?i:({CLOUDS}))(?:/[^/]+(?:/[^/]+)?)?|\*(?:/[^/]+(?:/[^/]+)?)?)$",
    },
    "accelerators": TEXT,
    "accelerator_args": {"type": "object", "properties": {"runtime_version": TEXT}},
    "use_spot": {"type": "boolean"},
    "job_recovery": {"type": "object", "properties": RECOVERY},
}
STORAGE = {"source": TEXT, "mode": {"enum": ["MOUNT", "COPY", "MOUNT_CACHED"]}}
TASK = closed(
    {
        "type": "object",
        "properties": {
            "name": TEXT,
            "workdir": TEXT,
            "num_nodes": {"type": "integer"},
            "resources": {"type": "object", "properties": RESOURCES},
            "file_mounts": {
                "type": "object",
                "additionalProperties": {"type": "object", "properties": STORAGE},
            },
            "envs": {
                "type": "object",
                "patternProperties": {"^[a-zA-Z_][a-zA-Z0-9_]*$": {"type": ["string", "null"]}},
                "additionalProperties": False,
            },
            "setup": TEXT,
            "run": TEXT,
        },
    }
)


def errors(schema, value) -> list[str]:
    return [error.message for error in jsonschema.Draft202012Validator(schema).iter_errors(value)]


@pytest.mark.parametrize("file", JOB_SETS)
def test_job_sets_are_what_jobset_reads(file):
    assert errors(JOB_SET, yaml.safe_load(rendered(file))) == []


def test_a_job_set_with_a_typing_error_is_not():
    made = yaml.safe_load(rendered(JOB_SETS[0]))
    for path, wrong in [
        (["spec"], ("failurePolcy", {})),
        (["spec", "failurePolicy"], ("restartStrategy", "Sometimes")),
        (["spec", "replicatedJobs", 0, "template", "spec"], ("parallelism", "4")),
        (
            ["spec", "replicatedJobs", 0, "template", "spec", "template", "spec", "containers", 0],
            ("imag", "x"),
        ),
    ]:
        changed = copy.deepcopy(made)
        place = changed
        for step in path:
            place = place[step]
        place[wrong[0]] = wrong[1]
        assert len(errors(JOB_SET, changed)) == 1, wrong


@pytest.mark.parametrize("file", JOB_SETS)
def test_their_jobs_are_what_kubernetes_reads(file):
    validate = pytest.importorskip("kubernetes_validate")
    made = yaml.safe_load(rendered(file))["spec"]["replicatedJobs"][0]["template"]
    validate.validate(
        {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "x"}, **made}, "1.33", strict=True
    )


@pytest.mark.parametrize("file", TASKS)
def test_tasks_are_what_skypilot_reads(file):
    made = yaml.safe_load(rendered(file))
    assert errors(TASK, made) == []
    assert errors(TASK, {**made, "setups": "x"}) != []
    assert errors(TASK, {**made, "resources": {**made["resources"], "infra": "gpc/us-central1"}}) != []


def job_set(flags: str):
    text = next(
        iter(plan("k8s", f"--config vit_digits --image i --volume runs:/runs {flags}").files.values())
    )
    return yaml.safe_load(text)


@pytest.mark.parametrize(
    ("name", "accelerator", "topology", "hosts", "chips"),
    [  # https://cloud.google.com/kubernetes-engine/docs/concepts/plan-tpus, and the pages of the versions
        ("v5litepod-16", "tpu-v5-lite-podslice", "4x4", 4, 4),
        ("v5litepod-256", "tpu-v5-lite-podslice", "16x16", 64, 4),
        ("v5litepod-8", "tpu-v5-lite-podslice", "2x4", 1, 8),
        ("v5e-1", "tpu-v5-lite-podslice", "1x1", 1, 1),
        ("v6e-4", "tpu-v6e-slice", "2x2", 1, 4),
        ("v5p-8", "tpu-v5p-slice", "2x2x1", 1, 4),
        ("v5p-128", "tpu-v5p-slice", "4x4x4", 16, 4),
        ("v4-32", "tpu-v4-podslice", "2x2x4", 4, 4),
        ("tpu7x:4x4x4", "tpu7x", "4x4x4", 16, 4),
    ],
)
def test_pods_of_a_slice(name, accelerator, topology, hosts, chips):
    job = job_set(f"--slice {name}")["spec"]["replicatedJobs"][0]["template"]["spec"]
    pod = job["template"]["spec"]
    assert (job["parallelism"], job["completions"]) == (hosts, hosts)
    assert pod["nodeSelector"] == {
        "cloud.google.com/gke-tpu-accelerator": accelerator,
        "cloud.google.com/gke-tpu-topology": topology,
    }
    assert pod["containers"][0]["resources"]["limits"] == {"google.com/tpu": chips}


def test_what_starting_again_does_not_mend_ends_the_job_set_and_all_else_starts_it_anew():
    made = job_set("--slice v5e-16 --restarts 7")["spec"]
    job = made["replicatedJobs"][0]["template"]["spec"]
    rule = job["podFailurePolicy"]["rules"]
    assert [
        (each["action"], each["onExitCodes"]["operator"], each["onExitCodes"]["values"]) for each in rule
    ] == [("FailJob", "In", [1, 2])]
    assert rule[0]["onExitCodes"]["containerName"] == job["template"]["spec"]["containers"][0]["name"]
    assert [(each["action"], each["onJobFailureReasons"]) for each in made["failurePolicy"]["rules"]] == [
        ("FailJobSet", ["PodFailurePolicy"])
    ]
    assert (made["failurePolicy"]["maxRestarts"], job["backoffLimit"]) == (7, 0)
    assert job["template"]["spec"]["restartPolicy"] == "Never"  # a pod failure policy needs that


def test_machines_with_gpus_are_told_of_the_first():
    made = job_set("--gpus 8 --nodes 4 --name big")
    pod = made["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]
    found = {each["name"]: each.get("value", each.get("valueFrom")) for each in pod["containers"][0]["env"]}
    job = made["spec"]["replicatedJobs"][0]["name"]
    assert found["JAXFORMER_COORDINATOR"] == f"big-{job}-0-0.big:8476"  # JobSet: SET-JOB-NUMBER-POD.SET
    assert found["JAXFORMER_PROCESSES"] == "4"
    assert found["JAXFORMER_PROCESS"] == {"fieldRef": {"fieldPath": INDEX}}
    alone = job_set("--gpus 8")["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]
    assert not [each for each in alone["containers"][0]["env"] if each["name"] == "JAXFORMER_COORDINATOR"]


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("--slice v5e-8", {}),
        ("--gpus 8", {}),
        ("--slice v5e-16", {"JAXFORMER_HOST": INDEX}),
        (
            "--slice v5e-8 --slices 2",  # "0.0" is the first host, "1.0" the second
            {
                "JAXFORMER_HOST_SLICE": "metadata.labels['jobset.sigs.k8s.io/job-index']",
                "JAXFORMER_HOST_IN_SLICE": INDEX,
                "JAXFORMER_HOST": "$(JAXFORMER_HOST_SLICE).$(JAXFORMER_HOST_IN_SLICE)",
            },
        ),
    ],
)
def test_hosts_that_share_the_folder_have_a_number(flags, expected):
    pod = job_set(flags)["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]
    variables = pod["containers"][0].get("env", [])
    found = {
        each["name"]: each.get("value") or each["valueFrom"]["fieldRef"]["fieldPath"] for each in variables
    }
    found.pop("JAXFORMER_REVISION")
    assert found == expected
    assert list(found) == list(expected)  # Kubernetes replaces $(NAME) of a variable that stands before
