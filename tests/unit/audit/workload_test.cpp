#include "audit/workload.h"

#include <gtest/gtest.h>

#include <vector>

namespace egressd::audit {
namespace {

const std::string kId = "0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a69788796a5b4c3d2e1f0";
const std::string kId2 = "a94f5374fce5edbc8e2a8697c15331677e6ebf0ba94f5374fce5edbc8e2a8697";
const std::string kPod = "6ad2ba8f-6b1c-4f0f-9b65-0d1d2c3b4a59";
const std::string kPodSlice = "6ad2ba8f_6b1c_4f0f_9b65_0d1d2c3b4a59";
const std::string kStatic = "1a2b3c4d5e6f708192a3b4c5d6e7f809";

struct Case {
  const char* what;
  std::string path;
  std::string unit;
  std::string container = {};
  std::string pod = {};
};

TEST(Workload, IsWhatThePathSays) {
  const std::string user = "/user.slice/user-1000.slice/user@1000.service";
  const std::string burst = "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod";
  const std::vector<Case> cases{
      {"gone", "", ""},
      {"root", "/", ""},
      {"slice alone", "/system.slice", ""},
      {"init", "/init.scope", "init.scope"},
      {"service", "/system.slice/ssh.service", "ssh.service"},
      {"instance", "/system.slice/system-getty.slice/getty@tty1.service", "getty@tty1.service"},
      {"escaped", R"(/system.slice/system-modprobe.slice/mnt\x2ddata.mount)",
       R"(mnt\x2ddata.mount)"},
      {"underscore", "/system.slice/_cpu.service", "cpu.service"},
      {"socket", "/system.slice/rpcbind.socket", "rpcbind.socket"},
      {"session", "/user.slice/user-1000.slice/session-3.scope", "session-3.scope"},
      {"user manager", user + "/init.scope", "user@1000.service/init.scope"},
      {"user service", user + "/app.slice/app-gnome.slice/firefox.service",
       "user@1000.service/firefox.service"},
      {"user scope", user + "/app.slice/app-org.gnome.Terminal.slice/vte-spawn-1.scope",
       "user@1000.service/vte-spawn-1.scope"},
      {"user manager itself", user, "user@1000.service"},
      {"no third unit", user + "/a.service/b.service", "user@1000.service/a.service"},
      {"what a service makes below itself is no unit", "/system.slice/evil.service/ssh.service",
       "evil.service"},
      {"nspawn", "/machine.slice/systemd-nspawn@deb.service/payload/system.slice/ssh.service",
       "systemd-nspawn@deb.service"},
      {"just a suffix", "/.service", ""},

      {"containerd, systemd driver", burst + kPodSlice + ".slice/cri-containerd-" + kId + ".scope",
       "cri-containerd-" + kId + ".scope", kId, kPod},
      {"guaranteed pod",
       "/kubepods.slice/kubepods-pod" + kPodSlice + ".slice/cri-containerd-" + kId + ".scope",
       "cri-containerd-" + kId + ".scope", kId, kPod},
      {"static pod", burst + kStatic + ".slice/cri-containerd-" + kId + ".scope",
       "cri-containerd-" + kId + ".scope", kId, kStatic},
      {"pod without container", burst + kPodSlice + ".slice", "", "", kPod},
      {"containerd, cgroupfs driver", "/kubepods/besteffort/pod" + kPod + "/" + kId, "", kId, kPod},
      {"guaranteed, cgroupfs driver", "/kubepods/pod" + kPod + "/" + kId, "", kId, kPod},
      {"static pod, cgroupfs driver", "/kubepods/burstable/pod" + kStatic + "/" + kId, "", kId,
       kStatic},
      {"containerd under systemd without its driver",
       "/system.slice/containerd.service/kubepods-besteffort-pod" + kPodSlice +
           ".slice:cri-containerd:" + kId,
       "containerd.service", kId, kPod},
      {"systemd inside a container",
       burst + kPodSlice + ".slice/cri-containerd-" + kId + ".scope/system.slice/nginx.service",
       "cri-containerd-" + kId + ".scope", kId, kPod},
      {"CRI-O", burst + kPodSlice + ".slice/crio-" + kId + ".scope", "crio-" + kId + ".scope", kId,
       kPod},
      {"CRI-O with a level below", burst + kPodSlice + ".slice/crio-" + kId + ".scope/container",
       "crio-" + kId + ".scope", kId, kPod},
      {"CRI-O, cgroupfs driver", "/kubepods/burstable/pod" + kPod + "/crio-" + kId, "", kId, kPod},
      {"CRI-O conmon", burst + kPodSlice + ".slice/crio-conmon-" + kId + ".scope",
       "crio-conmon-" + kId + ".scope", "", kPod},
      {"docker", "/system.slice/docker-" + kId + ".scope", "docker-" + kId + ".scope", kId},
      {"docker, cgroupfs driver", "/docker/" + kId, "", kId},
      {"docker in docker", "/system.slice/docker-" + kId + ".scope/docker/" + kId2,
       "docker-" + kId + ".scope", kId},
      {"kind: the node is the container",
       "/system.slice/docker-" + kId +
           ".scope/kubelet.slice/kubelet-kubepods.slice/cri-containerd-" + kId2 + ".scope",
       "docker-" + kId + ".scope", kId},
      {"prefix before kubepods",
       "/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-burstable.slice/"
       "kubelet-kubepods-burstable-pod" +
           kPodSlice + ".slice/cri-containerd-" + kId + ".scope",
       "cri-containerd-" + kId + ".scope", kId, kPod},
      {"podman", "/machine.slice/libpod-" + kId + ".scope/container", "libpod-" + kId + ".scope",
       kId},
      {"podman conmon", "/machine.slice/libpod-conmon-" + kId + ".scope",
       "libpod-conmon-" + kId + ".scope"},
      {"podman, cgroupfs driver", "/libpod_parent/libpod-" + kId, "", kId},
      {"podman without root", user + "/user.slice/libpod-" + kId + ".scope/container",
       "user@1000.service/libpod-" + kId + ".scope", kId},
      {"podman pod",
       "/machine.slice/machine-libpod_pod_" + kId2 + ".slice/libpod-" + kId + ".scope",
       "libpod-" + kId + ".scope", kId},
      {"nerdctl", "/system.slice/nerdctl-" + kId + ".scope", "nerdctl-" + kId + ".scope", kId},

      {"id too short", "/docker/" + kId.substr(1), ""},
      {"id too long", "/docker/a" + kId, ""},
      {"id in capitals", "/docker/A" + kId.substr(1), ""},
      {"unknown runtime", "/system.slice/foo-" + kId + ".scope", "foo-" + kId + ".scope"},
      {"no uid", burst + "x.slice", ""},
      {"uid with wrong dashes", burst + "6ad2ba8f6_b1c_4f0f_9b65_0d1d2c3b4a59.slice", ""},
      {"pod outside kubepods", "/pod" + kPod, ""},
      {"slice outside kubepods", "/my-pod" + kPodSlice + ".slice", ""},
  };
  for (const Case& c : cases) {
    const auto got = workload_of(c.path);
    EXPECT_EQ(got.unit, c.unit) << c.what;
    EXPECT_EQ(got.container_id, c.container) << c.what;
    EXPECT_EQ(got.pod_uid, c.pod) << c.what;
  }
}

}  // namespace
}  // namespace egressd::audit
