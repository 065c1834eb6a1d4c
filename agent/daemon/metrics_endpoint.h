#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "base/clock.h"
#include "base/event_loop.h"
#include "base/result.h"
#include "metrics/pages.h"
#include "metrics/server.h"
#include "metrics/snapshot.h"

namespace egressd::daemon {

// Where metrics and health are served. Enforcement does not depend on it: an address that cannot be
// had is told and tried again, as long as it takes.
class MetricsEndpoint {
 public:
  // `listen` is ADDRESS:PORT, or "off". `take` is called from the loop, at most once a second. An
  // error only if `listen` is neither.
  static Result<std::unique_ptr<MetricsEndpoint>> open(EventLoop& loop, const std::string& listen,
                                                       std::function<metrics::Snapshot()> take);
  ~MetricsEndpoint() { loop_.cancel(retry_timer_); }
  MetricsEndpoint(const MetricsEndpoint&) = delete;
  MetricsEndpoint& operator=(const MetricsEndpoint&) = delete;

  // Why it is not served, for `status`; empty if it is, or if nobody wants it.
  [[nodiscard]] const std::string& error() const { return error_; }

 private:
  MetricsEndpoint(EventLoop& loop, std::function<metrics::Snapshot()> take)
      : loop_(loop), take_(std::move(take)) {}
  void try_to_listen(const metrics::ListenAddress& listen);
  metrics::Page page(std::string_view path);
  const metrics::Snapshot& snapshot();

  EventLoop& loop_;
  std::function<metrics::Snapshot()> take_;
  SystemClock clock_;
  EventLoop::TimerId retry_timer_ = 0;
  std::string error_;
  std::unique_ptr<const metrics::Snapshot> last_;
  std::optional<metrics::Page> page_;  // the one of /metrics
  BootTime page_made_{0};
  std::unique_ptr<metrics::Server> server_;
};

}  // namespace egressd::daemon
