#pragma once

#include <cstdint>
#include <map>

#include "analysis/tally.h"

namespace egressd::analysis {

// Verdicts over time, in at most kMaxBuckets steps of equal length: the steps grow as the time from
// the first to the last record does.
class Timeline {
 public:
  static constexpr std::int64_t kMaxBuckets = 120;

  struct Bucket {
    std::uint64_t denied = 0;
    std::uint64_t passed = 0;  // would be denied
  };

  void add(SystemTime time, bool denied, std::uint64_t count);
  [[nodiscard]] std::int64_t seconds_per_bucket() const { return width_; }
  // By seconds since 1970 divided by seconds_per_bucket(); only those with something in them.
  [[nodiscard]] const std::map<std::int64_t, Bucket>& buckets() const { return buckets_; }

 private:
  void widen();

  std::int64_t width_ = 1;
  std::map<std::int64_t, Bucket> buckets_;
};

}  // namespace egressd::analysis
