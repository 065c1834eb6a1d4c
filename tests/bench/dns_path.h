#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <vector>

#include "aim.h"
#include "arena.h"
#include "dns_world.h"

namespace egressd::bench {

struct DnsPlan {
  std::vector<std::uint32_t> sizes;  // names in the policy, and as many learned addresses
  int hot_rounds = 200;
  int cold_rounds = 60;
  int cold_runs = 100;  // of each kind, in each round
  int real_rounds = 60;
  int applies = 3;
};

// What learning from DNS costs: the programs run on packets in the kernel, and at work between two
// namespaces.
class DnsPath {
 public:
  DnsPath(DnsPlan plan, unsigned seed) : plan_(std::move(plan)), random_(seed) {}

  // Worlds are numbered from first_index on, see Place::create().
  Result<void> run(const Arena& arena, int first_index, const Cpus& cpus,
                   const std::function<void(const std::string&)>& progress);
  [[nodiscard]] std::vector<Aim> aims() const;
  // False if a figure is missing or not finite.
  bool print() const;
  [[nodiscard]] nlohmann::json json() const;
  [[nodiscard]] std::uint64_t failures() const;

 private:
  // One line of figures: a column per world, a value per round.
  struct Row {
    std::string name;
    std::string unit;
    bool difference = false;  // over the empty program of the same round
    std::vector<std::vector<double>> values;
  };
  using Rows = std::vector<Row>;
  struct HotRun;

  static std::vector<HotRun> hot_runs();
  void hot_round(std::size_t world, const std::vector<HotRun>& runs, Rows& to);
  void cold_round(std::size_t world);
  void real_round(std::size_t world);
  void add(Rows& rows, const std::string& name, const std::string& unit, bool difference,
           std::size_t world, double value) const;
  [[nodiscard]] Estimate figure(const Rows& rows, const std::string& name, std::size_t world) const;
  [[nodiscard]] bool print_rows(const Rows& rows) const;
  [[nodiscard]] nlohmann::json json_rows(const Rows& rows) const;

  DnsPlan plan_;
  std::mt19937 random_;
  std::vector<std::unique_ptr<DnsWorld>> worlds_;
  std::vector<std::uint32_t> fresh_;  // number of the address given out last, by world
  Rows hot_;
  Rows cold_;
  Rows real_;
};

}  // namespace egressd::bench
