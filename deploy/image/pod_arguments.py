#!/usr/bin/env python3
"""podman's arguments for the pod of a DaemonSet or Job, one a line, as test.sh needs them.

    pod_arguments.py MANIFEST KIND SOURCE=DIRECTORY…

SOURCE is a hostPath of the pod, or the name of a ConfigMap; it is mounted from DIRECTORY instead.
What is not understood is an error: a field of the pod that the test ignores is not tested.
"""

import sys

import yaml

# Of no meaning to a container started by hand.
IGNORED = {
    "automountServiceAccountToken",
    "enableServiceLinks",
    "nodeName",
    "nodeSelector",
    "priorityClassName",
    "restartPolicy",
    "terminationGracePeriodSeconds",
    "tolerations",
}
IGNORED_OF_CONTAINER = {
    "image",
    "imagePullPolicy",
    "livenessProbe",
    "name",
    "readinessProbe",
    "resources",
    "startupProbe",
}


def main():
    path, kind, *places = sys.argv[1:]
    places = dict(place.split("=", 1) for place in places)
    with open(path, encoding="utf-8") as file:
        [manifest] = [d for d in yaml.safe_load_all(file) if d and d["kind"] == kind]
    pod = dict(manifest["spec"]["template"]["spec"])
    for key in IGNORED:
        pod.pop(key, None)
    out = []
    if pod.pop("hostNetwork", False):
        out.append("--network=host")
    if pod.pop("hostPID", False):
        out.append("--pid=host")
    assert pod.pop("dnsPolicy") == "Default"  # the node's resolv.conf, as podman does it
    sources = {}
    for volume in pod.pop("volumes"):
        of = volume["hostPath"]["path"] if "hostPath" in volume else volume["configMap"]["name"]
        sources[volume["name"]] = places[of]

    [container] = pod.pop("containers")
    assert not pod, f"the test does not know {sorted(pod)}"
    container = {k: v for k, v in container.items() if k not in IGNORED_OF_CONTAINER}
    context = container.pop("securityContext")
    out.append(f"--user={context.pop('runAsUser')}")
    assert not context.pop("privileged")
    if not context.pop("allowPrivilegeEscalation"):
        out.append("--security-opt=no-new-privileges")
    if context.pop("readOnlyRootFilesystem"):
        # podman would put writable file systems on /run, /tmp, …; the kubelet does not.
        out += ["--read-only", "--read-only-tmpfs=false"]
    capabilities = context.pop("capabilities")
    out += [f"--cap-drop={name}" for name in capabilities["drop"]]
    out += [f"--cap-add={name}" for name in capabilities["add"]]
    if context.pop("seccompProfile")["type"] == "Unconfined":
        out.append("--security-opt=seccomp=unconfined")
    assert not context, f"the test does not know {sorted(context)}"
    for mount in container.pop("volumeMounts"):
        options = ["ro" if mount.get("readOnly") else "rw"]
        options.append("rslave" if mount.get("mountPropagation") == "HostToContainer" else "rprivate")
        out.append(f"--volume={sources[mount['name']]}:{mount['mountPath']}:{','.join(options)}")
    if "command" in container:
        out.append("--entrypoint=" + container["command"][0])
        container["args"] = container.pop("command")[1:] + container.get("args", [])
    arguments = container.pop("args", [])
    assert not container, f"the test does not know {sorted(container)}"
    print("\n".join(out + ["IMAGE"] + arguments))


main()
