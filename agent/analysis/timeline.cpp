#include "analysis/timeline.h"

#include <algorithm>
#include <array>

namespace egressd::analysis {
namespace {

// What a person counts in, seconds, each a multiple of the one before. Beyond the last, twice as
// much each time.
constexpr std::array<std::int64_t, 16> kWidths = {
    1,    5,      10,     30,     60,      300,       600,       1800,
    3600, 10'800, 21'600, 86'400, 604'800, 2'419'200, 7'257'600, 29'030'400};

// Rounds down, before 1970 too.
std::int64_t floor_div(std::int64_t a, std::int64_t b) {
  return a / b - (a % b != 0 && a < 0 ? 1 : 0);
}

}  // namespace

void Timeline::add(SystemTime time, bool denied, std::uint64_t count) {
  const auto seconds = std::chrono::floor<std::chrono::seconds>(time.time_since_epoch()).count();
  auto& bucket = buckets_[floor_div(seconds, width_)];
  auto& number = denied ? bucket.denied : bucket.passed;
  number = saturating_sum(number, count);
  while (buckets_.rbegin()->first - buckets_.begin()->first >= kMaxBuckets) widen();
}

void Timeline::widen() {
  const auto* next = std::ranges::upper_bound(kWidths, width_);
  const std::int64_t wider = next != kWidths.end() ? *next : 2 * width_;
  std::map<std::int64_t, Bucket> merged;
  for (const auto& [index, bucket] : buckets_) {
    auto& into = merged[floor_div(index, wider / width_)];
    into.denied = saturating_sum(into.denied, bucket.denied);
    into.passed = saturating_sum(into.passed, bucket.passed);
  }
  buckets_ = std::move(merged);
  width_ = wider;
}

}  // namespace egressd::analysis
