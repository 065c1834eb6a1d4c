#pragma once

#include <string>

#include "stats.h"

namespace egressd::bench {

struct Aim {
  std::string what;
  std::string unit;
  double limit = 0;
  bool at_least = false;
  Estimate measured;
  double noise = 0;      // |A/A|; 0 where there is none
  double tolerance = 0;  // what a third of is too noisy: the distance the aim leaves to "no change"
                         // Or the interval of the figure itself is wider than that distance.
  [[nodiscard]] bool noisy() const { return noise > tolerance / 3 || measured.error > tolerance; }
  [[nodiscard]] const char* verdict() const {
    const bool met = at_least ? measured.value >= limit : measured.value <= limit;
    if (noisy()) return met ? "met, but too noisy" : "missed, but too noisy";
    return met ? "met" : "MISSED";
  }
};

}  // namespace egressd::bench
