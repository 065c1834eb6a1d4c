"""Renders the chart with many values and holds what comes out against the fields there are."""

import copy
import json
import subprocess
import sys
import tempfile

import jsonschema
import yaml

CHART = "deploy/helm/egressd"
failures = []


def check(what, holds, why=""):
    print(("ok    " if holds else "FAIL  ") + what + (f": {why}" if why and not holds else ""))
    if not holds:
        failures.append(what)


class Strict(yaml.SafeLoader):
    """A key given twice is an error, as for the API server."""

    def construct_mapping(self, node, deep=False):
        keys = [self.construct_object(key, deep=deep) for key, _ in node.value]
        if len(keys) != len(set(keys)):
            raise yaml.YAMLError(f"a key is given twice among {keys}")
        return super().construct_mapping(node, deep)


def load(path):
    with open(path, encoding="utf-8") as file:
        return json.load(file) if path.endswith("json") else yaml.load(file, Strict)


def merged(into, values):
    into = copy.deepcopy(into)
    for key, value in values.items():
        both = isinstance(value, dict) and isinstance(into.get(key), dict)
        into[key] = merged(into[key], value) if both else value
    return into


KINDS = load("tests/check/kubernetes_schema.json")
VALUES = load(CHART + "/values.schema.json")
DEFAULTS = load(CHART + "/values.yaml")
jsonschema.Draft7Validator.check_schema(KINDS)
jsonschema.Draft7Validator.check_schema(VALUES)


def refusal_of_values(values):
    """As Helm does it: what the user gave over the defaults, as a whole."""
    errors = jsonschema.Draft7Validator(VALUES).iter_errors(merged(DEFAULTS, values))
    return "; ".join(f"{list(e.path)}: {e.message[:120]}" for e in errors)


def refusal_of(manifest):
    kind = f"{manifest.get('apiVersion')} {manifest.get('kind')}"
    if kind not in KINDS["definitions"]:
        return f"unknown kind {kind}"
    place = kind.replace("/", "~1")
    schema = {"$ref": f"#/definitions/{place}", "definitions": KINDS["definitions"]}
    errors = [f"{list(e.path)}: {e.message[:120]}"
              for e in jsonschema.Draft7Validator(schema).iter_errors(manifest)]
    if "template" in manifest.get("spec", {}) and not errors:
        template = manifest["spec"]["template"]
        pod = template["spec"]
        volumes = {v["name"] for v in pod.get("volumes", [])}
        for container in pod["containers"]:
            mounts = {m["name"] for m in container["volumeMounts"]}
            if mounts != volumes:
                errors.append(f"volumes {volumes}, mounted {mounts}")
        wanted = manifest["spec"].get("selector", {}).get("matchLabels", {})
        if not wanted.items() <= template["metadata"]["labels"].items():
            errors.append("the selector does not find the pods")
    return "; ".join(errors)


def render(values, *options):
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        yaml.safe_dump(values, file)
        file.flush()
        text = subprocess.run(["deploy/kubernetes/generate.sh", "--with", file.name, *options],
                              check=True, capture_output=True, text=True).stdout
    return [document for document in yaml.load_all(text, Strict) if document]


def checked_render(name, values, kinds):
    refused = refusal_of_values(values)
    check(f"values {name}: accepted", not refused, refused)
    documents = render(values)
    found = [d["kind"] for d in documents]
    check(f"values {name}: {', '.join(kinds)}", found == kinds, found)
    for document in documents:
        refused = refusal_of(document)
        check(f"values {name}: {document['kind']}", not refused, refused)
    return documents


def container_of(documents):
    [daemon_set] = [d for d in documents if d["kind"] == "DaemonSet"]
    return daemon_set["spec"]["template"]["spec"]["containers"][0]


def main():
    egressctl = sys.argv[1]
    plain = checked_render("of the chart", {}, ["ConfigMap", "DaemonSet"])
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        file.write(plain[0]["data"]["policy.yaml"])
        file.flush()
        said = subprocess.run([egressctl, "check", file.name], capture_output=True, text=True)
    check("egressctl takes the policy", said.returncode == 0, said.stdout + said.stderr)
    check("it begins in audit mode", "mode audit" in said.stdout, said.stdout)
    check("no rule of it is without effect", "never matches" not in said.stderr, said.stderr)
    with open("CMakeLists.txt", encoding="utf-8") as file:
        version = f"VERSION {load(CHART + '/Chart.yaml')['appVersion']} "
        check("the chart is of this version", version in file.read())

    every = checked_render("with monitoring", {
        "metrics": {"onNodeAddress": True, "port": 9999,
                    "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
                    "prometheusRule": {"enabled": True}, "dashboard": {"enabled": True}}},
        ["ConfigMap", "DaemonSet", "Service", "ServiceMonitor", "PrometheusRule", "ConfigMap"])
    [rules] = [d for d in every if d["kind"] == "PrometheusRule"]
    check("the alerts are those of deploy/prometheus",
          rules["spec"] == load("deploy/prometheus/alerts.yaml"))
    dashboard = every[-1]
    check("the dashboard is that of deploy/grafana",
          json.loads(dashboard["data"]["egressd.json"]) == load("deploy/grafana/egressd.json"))
    check("Grafana finds it", dashboard["metadata"]["labels"].get("grafana_dashboard") == "1")
    container = container_of(every)
    check("metrics on the node's address", "--metrics-listen=$(NODE_ADDRESS):9999" in container["args"])
    check("probes where the metrics are", container["readinessProbe"]["httpGet"] ==
          {"path": "/readyz", "port": 9999}, container["readinessProbe"])
    [monitor] = [d for d in every if d["kind"] == "ServiceMonitor"]
    [service] = [d for d in every if d["kind"] == "Service"]
    wanted = monitor["spec"]["selector"]["matchLabels"].items()
    check("Prometheus finds the service", wanted <= service["metadata"]["labels"].items())
    check("job is what the alerts go by",
          service["metadata"]["labels"][monitor["spec"]["jobLabel"]] == "egressd")

    other = checked_render("of another site", {
        "image": {"repository": "registry.example:5000/net/egressd", "digest": "sha256:" + "a" * 64,
                  "pullSecrets": [{"name": "pull"}]},
        "existingConfigMap": "1234", "mode": "enforce", "maxLearned": 2000000,
        "extraArgs": ["--audit-syslog=unix"], "seLinuxOptions": {"type": "spc_t"},
        "seccompProfile": {"type": "Localhost", "localhostProfile": "egressd.json"},
        "podAnnotations": {"number": "1", "truth": "true"}, "podLabels": {"team": "net"},
        "resources": {"limits": {"cpu": 1, "memory": "1Gi"}}, "maxUnavailable": "10%",
        "affinity": {"nodeAffinity": {}}, "tolerations": []}, ["DaemonSet"])
    args = container_of(other)["args"]
    check("numbers are written out", "--max-learned=2000000" in args, args)
    check("its digest wins", container_of(other)["image"].endswith("egressd@sha256:" + "a" * 64))

    jobs = checked_render("to detach", {"detach": {"nodes": ["aks-1", "aks-2"]}}, ["Job", "Job"])
    check("each on its node",
          [j["spec"]["template"]["spec"]["nodeName"] for j in jobs] == ["aks-1", "aks-2"])

    for path in ("egressd.yaml", "detach.yaml"):
        with open("deploy/kubernetes/" + path, encoding="utf-8") as file:
            for document in yaml.load_all(file.read().replace("NODE", "node"), Strict):
                refused = refusal_of(document)
                check(f"{path}: {document['kind']}", not refused, refused)

    # What must not get through.
    for name, values in {
            "unknown key": {"imagee": {}}, "unknown key below": {"image": {"tagg": "1"}},
            "latest": {"image": {"tag": "latest"}}, "short digest": {"image": {"digest": "sha256:1"}},
            "mode": {"mode": "warn"}, "port": {"metrics": {"port": 70000}},
            "port as text": {"metrics": {"port": "9477"}}, "argument": {"extraArgs": ["audit"]},
            "learned": {"maxLearned": 10}, "seccomp": {"seccompProfile": {"type": "None"}},
            "Localhost without a file": {"seccompProfile": {"type": "Localhost"}},
            "ServiceMonitor of loopback": {"metrics": {"serviceMonitor": {"enabled": True}}},
            "maxUnavailable 0": {"maxUnavailable": 0}, "quantity": {"resources": {"limits": {"memory": "much"}}},
            "policy as a map": {"policy": {"version": 1}}, "node": {"detach": {"nodes": ["a b"]}},
            "grace": {"terminationGracePeriodSeconds": -1}}.items():
        check(f"bad values, {name}: refused", refusal_of_values(values))

    def change(path, value, document=plain[1]):
        document = copy.deepcopy(document)
        at = document
        for step in path[:-1]:
            at = at[step]
        if value is None:
            del at[path[-1]]
        else:
            at[path[-1]] = value
        return refusal_of(document)

    pod = ["spec", "template", "spec"]
    container = pod + ["containers", 0]
    for name, path, value in (
            ("unknown field", container + ["securityContex"], {}),
            ("unknown field of a pod", pod + ["hostNetworks"], True),
            ("wrong type", container + ["args"], "run"),
            ("wrong type below", container + ["livenessProbe", "httpGet", "port"], "9477"),
            ("missing field", container + ["image"], None),
            ("privileged", container + ["securityContext", "privileged"], True),
            ("another capability", container + ["securityContext", "capabilities", "add"], ["SYS_ADMIN"]),
            ("volume without a mount", container + ["volumeMounts"], []),
            ("selector", ["spec", "selector", "matchLabels"], {"a": "b"}),
            ("preStop", container + ["lifecycle"], {"preStop": {}}),
            ("subPath", container + ["volumeMounts", 0, "subPath"], "policy.yaml")):
        check(f"bad manifest, {name}: refused", change(path, value))

    print(f"{len(failures)} failed")
    return 1 if failures else 0


sys.exit(main())
