#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace egressd::bench {

// Linear interpolation between the two nearest ranks; 0 <= q <= 1. NaN if there are no values.
double quantile(std::vector<double> values, double q);
inline double median(std::vector<double> values) { return quantile(std::move(values), 0.5); }

// A median with the half width of its notch: 1.57 * IQR / sqrt(n) (McGill, Tukey and Larsen 1978),
// about a 95 % interval however the tails look.
struct Estimate {
  double value = 0;
  double error = 0;
};
Estimate estimate(const std::vector<double>& values);

enum class Compare { Difference, Ratio };

// Figures of one quantity: one column per variant, one value per round, NaN where it did not run.
class Samples {
 public:
  Samples() = default;
  explicit Samples(std::size_t variants) : columns_(variants) {}

  void add(std::size_t variant, double value) { columns_[variant].push_back(value); }
  [[nodiscard]] bool ran(std::size_t variant) const { return !columns_[variant].empty(); }
  [[nodiscard]] Estimate absolute(std::size_t variant) const { return estimate(columns_[variant]); }
  // Compared round by round: what disturbs a round disturbs both alike. Both must have run in
  // every round.
  [[nodiscard]] Estimate against(std::size_t variant, std::size_t base, Compare how) const;

 private:
  std::vector<std::vector<double>> columns_;
};

// "12.3" with as many decimals as make sense beside 3 significant digits.
std::string number(double value);
// "1.23 ±0.04 ns", with a sign in front for differences.
std::string with_error(const Estimate& e, const std::string& unit, bool sign);
// "10", "10k", "1m".
std::string short_count(std::uint32_t n);
// Prints it as a column; columns are counted in characters, not bytes.
void cell(const std::string& text, int width);

}  // namespace egressd::bench
