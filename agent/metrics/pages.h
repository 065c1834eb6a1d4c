#pragma once

#include <functional>
#include <string>
#include <string_view>

#include "metrics/snapshot.h"

namespace egressd::metrics {

struct Page {
  unsigned status = 200;
  std::string type = "text/plain; charset=utf-8";
  std::string body;
};

// /metrics, /healthz, /readyz; anything else is not found. `snapshot` is called for those that
// need one.
Page page(std::string_view path, const std::function<const Snapshot&()>& snapshot, BootTime now);

}  // namespace egressd::metrics
