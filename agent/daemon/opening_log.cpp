#include "daemon/opening_log.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <fstream>
#include <utility>

#include "daemon/name_ids.h"

namespace egressd::daemon {

OpeningLog OpeningLog::load(std::string path) {
  OpeningLog log;
  log.path_ = std::move(path);
  std::int64_t since = 0;
  std::string state;
  if (std::ifstream in(log.path_); in >> since >> state) {
    log.last_.since = BootTime(since);
    log.open_ = state == "open";
  }
  return log;
}

std::vector<audit::Notice> OpeningLog::look(const enforce::Opening& opening, BootTime now,
                                            std::chrono::system_clock::time_point wall) {
  const auto time_of = [&](BootTime at) {
    return wall - std::chrono::duration_cast<std::chrono::system_clock::duration>(now - at);
  };
  const auto notice = [&](audit::Notice::Event event, BootTime at) {
    audit::Notice said;
    said.event = event;
    said.time = time_of(at);
    said.uid = opening.uid;
    said.comment = opening.reason;
    return said;
  };
  std::vector<audit::Notice> news;
  if (opening.since != BootTime(0) && opening.since != last_.since) {
    auto opened = notice(audit::Notice::Event::BreakGlassOpened, opening.since);
    opened.until = time_of(opening.until);
    news.push_back(std::move(opened));
    open_ = true;
    ++openings_;
  }
  last_ = opening;
  if (open_ && !opening.is_open(now)) {
    open_ = false;
    auto closed = notice(audit::Notice::Event::BreakGlassClosed, std::min(opening.until, now));
    // Gone with the kernel's maps, by egressctl detach or a boot: whose it was and when it ended,
    // they do not say any more.
    if (opening.since == BootTime(0)) {
      closed.time = wall;
      closed.uid.reset();
    }
    news.push_back(std::move(closed));
  }
  if (!news.empty()) save();
  return news;
}

// The time since boot alone would do: after a boot the kernel has another, or none.
void OpeningLog::save() const {
  const std::string text = std::to_string(last_.since.count()) + (open_ ? " open\n" : " closed\n");
  if (auto r = write_file_atomically(path_, text, Outlives::Agent); !r)
    spdlog::warn("{}; the next agent will put break-glass on record once more", r.error().message);
}

}  // namespace egressd::daemon
