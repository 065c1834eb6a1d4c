#include <algorithm>
#include <nlohmann/json.hpp>
#include <string>

#include "control/client.h"
#include "doctor/checks.h"
#include "enforce/probe.h"

namespace egressd::doctor {
namespace {

using nlohmann::json;

constexpr std::chrono::seconds kAnswerWithin{5};

Result<json> ask_status(const std::string& socket) {
  auto client =
      control::Client::request(socket, {.command = "status", .arguments = {}}, kAnswerWithin);
  if (!client) return std::unexpected(std::move(client.error()));
  auto line = client->read_line(kAnswerWithin);
  if (!line) return std::unexpected(std::move(line.error()));
  if (!*line) return std::unexpected(Error::of(socket + ": closed without an answer"));
  const auto answer = control::check_answer(std::move(**line));
  if (!answer) return std::unexpected(answer.error());
  auto j = json::parse(*answer, nullptr, false);
  if (!j.is_object()) return std::unexpected(Error::of(socket + ": the answer is no JSON object"));
  return j;
}

std::string text_of(const json& j, const char* key) {
  const auto it = j.find(key);
  return it != j.end() && it->is_string() ? it->get<std::string>() : std::string();
}

}  // namespace

Agent check_agent(Findings& findings, const Options& options) {
  const auto pins = enforce::pinned_links(options.bpffs);
  const auto status = ask_status(options.socket);
  if (!status) {
    const bool refused = status.error().code == EACCES || status.error().code == EPERM;
    if (refused)
      add(findings, "daemon", State::Degraded,
          "the daemon may not be asked: " + status.error().message, "run egressctl doctor as root");
    else if (!pins.empty())
      add(findings, "daemon", State::Degraded,
          "no daemon answers on " + options.socket + ", but " + std::to_string(pins.size()) +
              " programs pinned in " + options.bpffs +
              " enforce the last policy: addresses are not renewed, refusals not recorded",
          "start egressd, or end enforcement: egressctl detach --socket " + options.socket +
              " --bpffs " + options.bpffs);
    else
      add(findings, "daemon", State::Degraded,
          "no daemon answers on " + options.socket + " (" + status.error().message +
              ") and nothing is pinned in " + options.bpffs + ": no policy is enforced",
          "start egressd, or name its --socket and --bpffs");
    return {};
  }

  Agent agent{.answers = true,
              .policy_path = text_of(*status, "policy_path"),
              .cgroup = text_of(*status, "cgroup")};
  std::size_t attached = 0;
  const auto layers = status->find("layers");
  if (layers != status->end() && layers->is_array()) {
    for (const json& layer : *layers) {
      if (!layer.is_object()) continue;
      if (layer.value("attached", json(false)) == json(true)) {
        ++attached;
        continue;
      }
      if (layer.value("needed", json(true)) == json(false)) {
        add(findings, "layers", State::Degraded,
            text_of(layer, "program") + " does not stand behind eBPF: " + text_of(layer, "detail"),
            "what only nftables sees is not judged: remove the cause, or use --backend bpf");
        continue;
      }
      add(findings, "layers", State::Broken,
          text_of(layer, "program") + " is not attached: " + text_of(layer, "detail"),
          "enforcement is incomplete: restart egressd");
    }
  }
  if (attached > 0 && pins.empty())
    add(findings, "pins", State::Broken,
        "a daemon answers, but nothing is pinned in " + options.bpffs +
            ": if that is its directory, enforcement ends with the daemon",
        "name its directory with --bpffs, or restart egressd");
  const auto warnings = status->find("warnings");
  if (warnings != status->end() && warnings->is_array()) {
    for (const json& warning : *warnings)
      if (warning.is_string())
        add(findings, "daemon", State::Degraded, warning.get<std::string>(),
            "`egressctl status` shows the details");
  }
  add(findings, "daemon", State::Ok,
      "a daemon answers on " + options.socket + ": mode " + text_of(*status, "mode") + ", " +
          std::to_string(attached) + " programs attached to " + agent.cgroup);
  return agent;
}

}  // namespace egressd::doctor
