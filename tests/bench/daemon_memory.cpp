#include "daemon_memory.h"

#include <arpa/inet.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cstring>
#include <fstream>
#include <thread>

#include "daemon_process.h"

namespace egressd::bench {
namespace {

constexpr const char* kServer = "192.168.253.53";

constexpr const char* kPolicy = R"(version: 1
mode: enforce
tags: [AzurePlatform, AzureKubernetesService, PythonPackages]
parameters:
  region: [eastus, westus2]
  storage: [benchstore, benchdata]
  acr: benchregistry
  workspace-id: 0f0e0d0c-0b0a-0908-0706-050403020100
dns:
  servers: [192.168.253.53]
  resolve: [eastus.api.azureml.ms, westus2.api.azureml.ms]
collections:
  - name: workspace
    priority: 300
    action: allow
    rules:
      - name: aml
        tags: [AzureMachineLearning]
        allowPrivate: true
)";

// Answers every A question with four addresses made of the name, anything else with none.
class NameServer {
 public:
  explicit NameServer(UniqueFd fd) : fd_(std::move(fd)), thread_([this] { serve(); }) {}
  ~NameServer() {
    stop_ = true;
    thread_.join();
  }
  NameServer(const NameServer&) = delete;
  NameServer& operator=(const NameServer&) = delete;
  [[nodiscard]] int questions() const { return questions_; }

 private:
  void serve() {
    std::array<std::uint8_t, 1500> message{};
    while (!stop_) {
      pollfd ready{.fd = fd_.get(), .events = POLLIN, .revents = 0};
      if (::poll(&ready, 1, 50) <= 0) continue;
      sockaddr_in from{};
      socklen_t size = sizeof(from);
      const ssize_t n =
          ::recvfrom(fd_.get(), message.data(), 600, 0, reinterpret_cast<sockaddr*>(&from), &size);
      if (n < 17) continue;
      ++questions_;
      std::size_t at = 12;
      std::uint32_t hash = 2166136261u;
      while (at < static_cast<std::size_t>(n) && message[at] != 0) {
        for (const std::size_t end = at + message[at] + 1u; at < end; ++at)
          hash = (hash ^ message[at]) * 16777619u;
      }
      if (at + 5 > static_cast<std::size_t>(n)) continue;
      const bool wants_a = message[at + 1] == 0 && message[at + 2] == 1;
      at += 5;  // root label, type, class; an OPT record behind them is left out
      const std::uint8_t count = wants_a ? 4 : 0;
      const std::uint8_t counts[10] = {0x81, 0x80, 0, 1, 0, count, 0, 0, 0, 0};
      std::memcpy(&message[2], counts, sizeof(counts));
      for (std::uint8_t i = 0; i < count; ++i) {
        // The question's name, A, IN, 300 seconds; 20.0.0.0/8 is ordinary address space.
        const std::uint8_t record[16] = {0xc0,
                                         12,
                                         0,
                                         1,
                                         0,
                                         1,
                                         0,
                                         0,
                                         1,
                                         44,
                                         0,
                                         4,
                                         20,
                                         static_cast<std::uint8_t>(hash >> 16),
                                         static_cast<std::uint8_t>(hash >> 8),
                                         static_cast<std::uint8_t>(hash + i)};
        std::memcpy(&message[at], record, sizeof(record));
        at += sizeof(record);
      }
      ::sendto(fd_.get(), message.data(), at, 0, reinterpret_cast<sockaddr*>(&from), size);
    }
  }

  UniqueFd fd_;
  std::atomic<bool> stop_{false};
  std::atomic<int> questions_{0};
  std::thread thread_;
};

double status_kib(const std::string& status, const char* key) {
  const auto at = status.find(key);
  return at == std::string::npos ? 0 : std::stod(status.substr(at + std::strlen(key) + 1));
}

}  // namespace

Result<DaemonMemory> measure_daemon(const Arena& arena, const std::string& egressd,
                                    std::chrono::seconds limit) {
  auto netns = Netns::create();
  if (!netns) return std::unexpected(netns.error());
  if (auto r = netns->ip(std::string("addr add ") + kServer + "/32 dev lo\n"); !r)
    return std::unexpected(r.error());
  const std::string policy = arena.dir() + "/policy.yaml";
  std::ofstream(policy) << kPolicy;

  UniqueFd socket;
  auto r = netns->inside([&]() -> Result<void> {
    socket = UniqueFd(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    sockaddr_in at{};
    at.sin_family = AF_INET;
    at.sin_port = htons(53);
    ::inet_pton(AF_INET, kServer, &at.sin_addr);
    if (::bind(socket.get(), reinterpret_cast<const sockaddr*>(&at), sizeof(at)) != 0)
      return std::unexpected(Error::from_errno("listen for DNS"));
    return {};
  });
  if (!r) return std::unexpected(r.error());
  const NameServer server(std::move(socket));

  auto daemon = Daemon::start(arena, "daemon", *netns, egressd, policy);
  if (!daemon) return std::unexpected(daemon.error());

  DaemonMemory memory;
  const auto begin = std::chrono::steady_clock::now();
  auto still_since = begin;
  while (!interrupted() && std::chrono::steady_clock::now() - begin < limit) {
    ::usleep(100000);
    if ((*daemon)->ended()) {
      return std::unexpected(Error::of("egressd ended before it settled:\n" + (*daemon)->log()));
    }
    auto status = read_file("/proc/" + std::to_string((*daemon)->pid()) + "/status");
    if (!status) continue;
    const double rss = status_kib(*status, "VmRSS:");
    const int questions = server.questions();
    const bool up = (*daemon)->is_up();
    if (rss != memory.rss_kib || questions != memory.questions || !up)
      still_since = std::chrono::steady_clock::now();
    memory.rss_kib = rss;
    memory.anonymous_kib = status_kib(*status, "RssAnon:");
    memory.peak_kib = status_kib(*status, "VmHWM:");
    memory.questions = questions;
    if (std::chrono::steady_clock::now() - still_since > std::chrono::seconds(2)) {
      memory.settled = true;
      break;
    }
  }
  if (memory.questions == 0)
    return std::unexpected(Error::of("egressd asked no names:\n" + (*daemon)->log()));
  return memory;
}

}  // namespace egressd::bench
