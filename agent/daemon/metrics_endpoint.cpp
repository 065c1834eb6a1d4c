#include "daemon/metrics_endpoint.h"

#include <spdlog/spdlog.h>

#include <utility>

#include "metrics/pages.h"

namespace egressd::daemon {
namespace {

constexpr std::chrono::seconds kRetryEvery{2};
// Asking the kernel takes milliseconds where much is learned: whoever scrapes in a loop must not
// keep the agent at it.
constexpr std::chrono::seconds kFreshFor{1};

}  // namespace

Result<std::unique_ptr<MetricsEndpoint>> MetricsEndpoint::open(
    EventLoop& loop, const std::string& listen, std::function<metrics::Snapshot()> take) {
  std::unique_ptr<MetricsEndpoint> endpoint(new MetricsEndpoint(loop, std::move(take)));
  if (listen == "off") return endpoint;
  const auto address = metrics::ListenAddress::parse(listen);
  if (!address) return std::unexpected(Error(address.error()).context("--metrics-listen"));
  if (!address->address.is_loopback())
    spdlog::warn("metrics, with the names of rules, are readable by whoever reaches {}",
                 address->to_string());
  endpoint->try_to_listen(*address);
  return endpoint;
}

void MetricsEndpoint::try_to_listen(const metrics::ListenAddress& listen) {
  retry_timer_ = 0;
  auto server = metrics::Server::open(loop_, listen, {},
                                      [this](std::string_view path) { return page(path); });
  if (server) {
    server_ = std::move(*server);
    error_.clear();
    spdlog::info("metrics and health on http://{}/metrics", listen.to_string());
    return;
  }
  if (error_.empty())
    spdlog::warn(
        "no metrics: {}; tried again until it works ('--metrics-listen' takes another "
        "ADDRESS:PORT, or off)",
        server.error().message);
  error_ = server.error().message;
  retry_timer_ = loop_.after(kRetryEvery, [this, listen] { try_to_listen(listen); });
}

// The long page is made once for all who ask meanwhile.
metrics::Page MetricsEndpoint::page(std::string_view path) {
  const BootTime now = clock_.now();
  const auto make = [&] {
    return metrics::page(path, [this]() -> const metrics::Snapshot& { return snapshot(); }, now);
  };
  if (path != "/metrics") return make();
  if (!page_ || now - page_made_ >= kFreshFor) {
    page_ = make();
    page_made_ = now;
  }
  return *page_;
}

const metrics::Snapshot& MetricsEndpoint::snapshot() {
  if (!last_ || clock_.now() - last_->taken >= kFreshFor)
    last_ = std::make_unique<const metrics::Snapshot>(take_());
  return *last_;
}

}  // namespace egressd::daemon
