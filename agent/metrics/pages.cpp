#include "metrics/pages.h"

#include <utility>

#include "metrics/exposition.h"

namespace egressd::metrics {
namespace {

Page readiness(const Snapshot& snapshot) {
  if (snapshot.unready.empty()) return {.body = "ready\n"};
  std::string reasons;
  for (const std::string& reason : snapshot.unready) reasons += reason + "\n";
  return {.status = 503, .body = std::move(reasons)};
}

}  // namespace

Page page(std::string_view path, const std::function<const Snapshot&()>& snapshot, BootTime now) {
  // Answers come from the event loop: one that does not turn answers nobody.
  if (path == "/healthz") return {.body = "ok\n"};
  if (path == "/readyz") return readiness(snapshot());
  if (path == "/metrics")
    return {.type = "text/plain; version=0.0.4; charset=utf-8",
            .body = exposition(snapshot(), now)};
  return {.status = 404, .body = "not here; try /metrics, /healthz or /readyz\n"};
}

}  // namespace egressd::metrics
