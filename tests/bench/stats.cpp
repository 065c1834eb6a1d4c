#include "stats.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>

namespace egressd::bench {

double quantile(std::vector<double> values, double q) {
  if (values.empty()) return std::numeric_limits<double>::quiet_NaN();
  std::ranges::sort(values);
  const double at = q * static_cast<double>(values.size() - 1);
  const auto low = static_cast<std::size_t>(at);
  const std::size_t high = std::min(low + 1, values.size() - 1);
  return values[low] + (values[high] - values[low]) * (at - static_cast<double>(low));
}

Estimate estimate(const std::vector<double>& values) {
  const double spread = quantile(values, 0.75) - quantile(values, 0.25);
  return {median(values), 1.57 * spread / std::sqrt(static_cast<double>(values.size()))};
}

Estimate Samples::against(std::size_t variant, std::size_t base, Compare how) const {
  const auto& ours = columns_[variant];
  const auto& theirs = columns_[base];
  std::vector<double> pairs(std::min(ours.size(), theirs.size()));
  for (std::size_t i = 0; i < pairs.size(); ++i)
    pairs[i] = how == Compare::Ratio ? ours[i] / theirs[i] : ours[i] - theirs[i];
  return estimate(pairs);
}

std::string number(double value) {
  const double size = std::fabs(value);
  const int decimals = size >= 100 ? 0 : size >= 10 ? 1 : size >= 1 ? 2 : 3;
  char text[48];
  std::snprintf(text, sizeof(text), "%.*f", decimals, value);
  return text;
}

std::string with_error(const Estimate& e, const std::string& unit, bool sign) {
  return (sign && e.value >= 0 ? "+" : "") + number(e.value) + " ±" + number(e.error) + " " + unit;
}

std::string short_count(std::uint32_t n) {
  if (n % 1'000'000 == 0) return std::to_string(n / 1'000'000) + "m";
  if (n % 1'000 == 0) return std::to_string(n / 1'000) + "k";
  return std::to_string(n);
}

void cell(const std::string& text, int width) {
  int characters = 0;
  for (const char c : text) characters += (c & 0xc0) != 0x80;
  std::printf("%s%*s", text.c_str(), std::max(0, width - characters), "");
}

}  // namespace egressd::bench
