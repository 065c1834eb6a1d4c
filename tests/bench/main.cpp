#include <sys/resource.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <nlohmann/json.hpp>
#include <numeric>
#include <random>

#include "aim.h"
#include "arena.h"
#include "daemon_memory.h"
#include "dns_path.h"
#include "reload.h"
#include "stats.h"
#include "traffic.h"
#include "variant.h"

namespace {

using namespace egressd::bench;
using egressd::Result;

constexpr int kExitFailure = 1;
constexpr int kExitCannotRun = 77;
constexpr int kExitInterrupted = 130;
constexpr double kDaemonMib = 32;  // resident, with all tags

struct Plan {
  std::uint32_t few = 10;
  std::uint32_t many = 10'000;
  std::uint32_t most = 1'000'000;
  std::vector<std::uint32_t> nft_sizes{few, many, most};
  int connect_rounds = 300;
  int packet_rounds = 300;
  int cold_rounds = 60;
  int bulk_rounds = 200;
  int applies = 3;
  int dns_hot_rounds = 200;
  int dns_cold_rounds = 60;
  int dns_real_rounds = 60;
  int reload_rounds = 30;
  std::chrono::seconds settle{40};

  static Plan quick() {
    return {.most = 100'000,
            .nft_sizes = {10'000},
            .connect_rounds = 30,
            .packet_rounds = 40,
            .cold_rounds = 8,
            .bulk_rounds = 8,
            .applies = 1,
            .dns_hot_rounds = 12,
            .dns_cold_rounds = 4,
            .dns_real_rounds = 6,
            .reload_rounds = 3,
            .settle = std::chrono::seconds(10)};
  }
};

// What to leave out.
enum class Only { Nothing, Dns, Reload };

// How one quantity is shown.
enum class Show { Difference, Ratio, Absolute };

struct Measure {
  std::string name;
  std::string unit;
  Show show = Show::Difference;
  Samples samples;
  int rounds = 0;
};

class Bench {
 public:
  Bench(Plan plan, std::string egressd, unsigned seed, Only only)
      : plan_(plan),
        egressd_(std::move(egressd)),
        only_(only),
        random_(seed),
        dns_({.sizes = {plan.few, plan.many, plan.most},
              .hot_rounds = plan.dns_hot_rounds,
              .cold_rounds = plan.dns_cold_rounds,
              .real_rounds = plan.dns_real_rounds,
              .applies = plan.applies},
             seed) {}

  Result<void> run();
  // False if a figure is missing or not finite.
  bool print() const;
  [[nodiscard]] nlohmann::json json() const;
  [[nodiscard]] std::uint64_t failures() const {
    return static_cast<std::uint64_t>(failures_) + dns_.failures();
  }
  // The one aim that is no time, and the same on every machine.
  [[nodiscard]] bool daemon_fits() const {
    return !daemon_ || daemon_->rss_kib <= kDaemonMib * 1024;
  }

 private:
  using Group = std::vector<std::size_t>;

  Result<void> traffic();
  Result<void> set_up();
  template <typename Slice>
  void rounds(const char* what, int count, const Group& group, Slice slice);
  std::size_t measure(std::string name, std::string unit, Show show, int round_count);
  void connects();
  void denied();
  void packets();
  void cold(std::uint32_t size);
  void bulk();
  Result<void> control_plane();
  Result<void> reload();
  void aims();

  [[nodiscard]] std::size_t index(const std::string& name) const;
  [[nodiscard]] Group group(bool (*wanted)(const VariantSpec&)) const;
  [[nodiscard]] Estimate shown(const Measure& m, std::size_t variant) const;
  void progress(const std::string& what) const;

  Plan plan_;
  std::string egressd_;
  Only only_;
  std::mt19937 random_;
  Cpus cpus_ = choose_cpus();
  std::chrono::steady_clock::time_point begin_ = std::chrono::steady_clock::now();

  // In this order: what is below uses what is above until it is gone.
  std::unique_ptr<Arena> arena_;
  std::unique_ptr<Sink> sink_;
  std::vector<std::unique_ptr<Variant>> variants_;
  DnsPath dns_;

  std::vector<Measure> measures_;
  struct Control {
    std::size_t variant = 0;
    double apply_ms = 0;
    double learn_ns = 0;
    std::vector<MapMemory> maps;
    std::uint64_t map_bytes = 0;
  };
  std::vector<Control> control_;
  std::optional<DaemonMemory> daemon_;
  std::vector<Reloads> reloads_;
  std::vector<Aim> aims_;
  int failures_ = 0;
};

void Bench::progress(const std::string& what) const {
  const double s = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin_).count();
  std::fprintf(stderr, "[%5.1f s] %s\n", s, what.c_str());
}

std::size_t Bench::index(const std::string& name) const {
  const auto at =
      std::ranges::find_if(variants_, [&](const auto& v) { return v->spec().name == name; });
  return static_cast<std::size_t>(at - variants_.begin());
}

Bench::Group Bench::group(bool (*wanted)(const VariantSpec&)) const {
  Group all;
  for (std::size_t i = 0; i < variants_.size(); ++i)
    if (wanted(variants_[i]->spec())) all.push_back(i);
  return all;
}

Result<void> Bench::set_up() {
  auto sink = Sink::create(*arena_);
  if (!sink) return std::unexpected(sink.error());
  sink_ = std::move(*sink);

  std::vector<VariantSpec> specs = {
      {.name = "base"}, {.name = "base2"}, {.name = "empty", .kind = Kind::Empty}};
  for (const std::uint32_t n : {plan_.few, plan_.many, plan_.most})
    specs.push_back({.name = "static" + short_count(n), .kind = Kind::Static, .size = n});
  for (const std::uint32_t n : {plan_.few, plan_.many, plan_.most})
    specs.push_back({.name = "learned" + short_count(n), .kind = Kind::Learned, .size = n});
  for (const std::uint32_t n : {plan_.few, plan_.many})
    specs.push_back({.name = "cidr" + short_count(n), .kind = Kind::Cidr, .size = n});
  specs.push_back(
      {.name = "mixed" + short_count(plan_.many), .kind = Kind::Mixed, .size = plan_.many});
  specs.push_back({.name = "audit", .kind = Kind::Audit});
  for (const Kind kind : {Kind::Static, Kind::Learned}) {
    for (const std::uint32_t n : plan_.nft_sizes)
      specs.push_back(
          {.name = (kind == Kind::Static ? "nft-static" : "nft-learned") + short_count(n),
           .kind = kind,
           .size = n,
           .engine = Engine::Nft});
  }
  for (VariantSpec& spec : specs) {
    if (interrupted()) return {};
    auto variant =
        Variant::create(*arena_, *sink_, spec, static_cast<int>(variants_.size()), cpus_.sender);
    if (!variant) return std::unexpected(variant.error());
    variants_.push_back(std::move(*variant));
    progress("in force: " + spec.name);
  }
  return {};
}

// One slice of each variant of the group per round, in a new order every time.
template <typename Slice>
void Bench::rounds(const char* what, int count, const Group& group, Slice slice) {
  progress(what + (", " + std::to_string(count)) + " rounds");
  Group order = group;
  for (int round = 0; round < count && !interrupted(); ++round) {
    std::ranges::shuffle(order, random_);
    for (const std::size_t variant : order) slice(variant);
  }
}

std::size_t Bench::measure(std::string name, std::string unit, Show show, int round_count) {
  measures_.push_back(
      {std::move(name), std::move(unit), show, Samples(variants_.size()), round_count});
  return measures_.size() - 1;
}

void Bench::connects() {
  const std::size_t bare = measure("connect()", "µs", Show::Difference, plan_.connect_rounds);
  const std::size_t whole =
      measure("connect() + close()", "µs", Show::Difference, plan_.connect_rounds);
  const std::size_t all =
      measure("socket() + connect() + close()", "µs", Show::Difference, plan_.connect_rounds);
  // Ten destinations that every set holds.
  std::vector<std::uint32_t> to(plan_.few);
  for (std::uint32_t k = 0; k < to.size(); ++k) to[k] = address_number(k + 1);
  rounds("connect and close", plan_.connect_rounds, group([](const VariantSpec&) { return true; }),
         [&](std::size_t v) {
           const ConnectSlice slice = variants_[v]->connect(to, random_(), 40);
           sink_->drain();
           failures_ += slice.failures;
           measures_[bare].samples.add(v, slice.connect / 1000);
           measures_[whole].samples.add(v, slice.whole / 1000);
           measures_[all].samples.add(v, slice.with_socket / 1000);
         });
}

void Bench::denied() {
  const int count = std::max(20, plan_.connect_rounds / 3);
  Group enforcing;
  for (std::size_t i = 0; i < variants_.size(); ++i)
    if (variants_[i]->enforces()) enforcing.push_back(i);
  const std::size_t alone = measure("denied connect()", "µs", Show::Absolute, count);
  rounds("denied connect", count, enforcing, [&](std::size_t v) {
    const ConnectSlice slice = variants_[v]->denied(60);
    variants_[v]->drain_events();
    failures_ += slice.failures;
    measures_[alone].samples.add(v, slice.connect / 1000);
  });
  const std::size_t read =
      measure("denied connect(), events read as they come", "µs", Show::Absolute, count);
  std::vector<int> fds;
  // The daemon takes what nftables has to say from a socket.
  std::erase_if(enforcing, [&](std::size_t v) { return variants_[v]->events_fd() < 0; });
  for (const std::size_t v : enforcing) fds.push_back(variants_[v]->events_fd());
  const EventReader reader(fds, cpus_.sink);
  rounds("denied connect, with a reader", count, enforcing, [&](std::size_t v) {
    const ConnectSlice slice = variants_[v]->denied(60);
    failures_ += slice.failures;
    measures_[read].samples.add(v, slice.connect / 1000);
  });
}

void Bench::packets() {
  const Group everyone = group([](const VariantSpec&) { return true; });
  const std::size_t live =
      measure("UDP, connected, one flow", "ns/packet", Show::Difference, plan_.packet_rounds);
  rounds("connected UDP", plan_.packet_rounds, everyone, [&](std::size_t v) {
    const PacketSlice slice = variants_[v]->udp_connected(1024);
    failures_ += slice.failures;
    measures_[live].samples.add(v, slice.cpu);
  });
  const std::size_t open = measure("UDP, unconnected, one destination", "ns/packet",
                                   Show::Difference, plan_.packet_rounds);
  const std::vector<std::uint32_t> one = {address_number(1)};
  rounds("unconnected UDP", plan_.packet_rounds, everyone, [&](std::size_t v) {
    const PacketSlice slice = variants_[v]->udp_unconnected(one, 0, 1024);
    failures_ += slice.failures;
    measures_[open].samples.add(v, slice.cpu);
  });
  const std::size_t ten = measure("UDP, unconnected, 10 destinations in turn", "ns/packet",
                                  Show::Difference, plan_.packet_rounds);
  std::vector<std::uint32_t> to(plan_.few);
  for (std::uint32_t k = 0; k < to.size(); ++k) to[k] = address_number(k + 1);
  rounds("unconnected UDP, 10 destinations", plan_.packet_rounds, everyone, [&](std::size_t v) {
    const PacketSlice slice = variants_[v]->udp_unconnected(to, 0, 1024);
    failures_ += slice.failures;
    measures_[ten].samples.add(v, slice.cpu);
  });
}

// Every address of the set in a random order, for the variants that have a set of that size.
void Bench::cold(std::uint32_t size) {
  const std::string all = "all " + short_count(size) + " at random";
  const std::size_t udp =
      measure("UDP, unconnected, " + all, "ns/packet", Show::Difference, plan_.cold_rounds);
  const std::size_t tcp =
      measure("connect() + close(), " + all, "µs", Show::Difference, plan_.cold_rounds);
  std::vector<std::uint32_t> to(size);
  for (std::uint32_t k = 0; k < size; ++k) to[k] = address_number(k + 1);
  std::ranges::shuffle(to, random_);
  Group some;
  for (std::size_t i = 0; i < variants_.size(); ++i) {
    const VariantSpec& spec = variants_[i]->spec();
    if (spec.size == size || spec.kind == Kind::Nothing || spec.kind == Kind::Empty)
      some.push_back(i);
  }
  rounds(("unconnected UDP, " + all).c_str(), plan_.cold_rounds, some, [&](std::size_t v) {
    const PacketSlice slice = variants_[v]->udp_unconnected(to, random_(), 8192);
    failures_ += slice.failures;
    measures_[udp].samples.add(v, slice.cpu);
  });
  rounds(("connect, " + all).c_str(), plan_.cold_rounds, some, [&](std::size_t v) {
    const ConnectSlice slice = variants_[v]->connect(to, random_(), 60);
    sink_->drain();
    failures_ += slice.failures;
    measures_[tcp].samples.add(v, slice.whole / 1000);
  });
}

void Bench::bulk() {
  const std::size_t cpu =
      measure("bulk TCP, sender's CPU per KB", "ns/KB", Show::Ratio, plan_.bulk_rounds);
  const std::size_t wall = measure("bulk TCP, throughput", "GB/s", Show::Ratio, plan_.bulk_rounds);
  sink_->start(cpus_.sink);
  constexpr std::int64_t kSlice = 25'000'000;
  // Windows grow over the first slices.
  for (const auto& variant : variants_) {
    if (!interrupted()) variant->bulk(kSlice);
  }
  rounds("bulk TCP", plan_.bulk_rounds, group([](const VariantSpec&) { return true; }),
         [&](std::size_t v) {
           const BulkSlice slice = variants_[v]->bulk(kSlice);
           if (slice.bytes == 0) ++failures_;
           measures_[cpu].samples.add(v, slice.cpu_per_kb);
           measures_[wall].samples.add(v, 1024 / slice.wall_per_kb);
         });
  sink_->stop();
}

Result<void> Bench::control_plane() {
  progress("apply() and memory");
  for (std::size_t i = 0; i < variants_.size() && !interrupted(); ++i) {
    Variant& variant = *variants_[i];
    if (!variant.has_backend()) continue;
    auto maps = variant.memory();
    if (!maps) return std::unexpected(maps.error());
    Control row{.variant = i, .learn_ns = variant.learn_ns(), .maps = std::move(*maps)};
    for (const MapMemory& map : row.maps) row.map_bytes += map.bytes;
    std::vector<double> times;
    for (int n = 0; n < plan_.applies && !interrupted(); ++n) {
      auto ms = variant.apply_again();
      if (!ms) return std::unexpected(ms.error());
      times.push_back(*ms);
    }
    row.apply_ms = median(times);
    control_.push_back(std::move(row));
  }
  return {};
}

Result<void> Bench::run() {
  auto arena = Arena::create();
  if (!arena) return std::unexpected(arena.error());
  arena_ = std::move(*arena);
  if (only_ == Only::Reload) return reload();
  if (only_ == Only::Nothing) {
    if (auto r = traffic(); !r) return r;
    if (auto r = reload(); !r) return r;
  }
  if (auto r = dns_.run(*arena_, static_cast<int>(variants_.size()), cpus_,
                        [this](const std::string& what) { progress(what); });
      !r)
    return r;
  if (interrupted()) return {};
  if (only_ == Only::Nothing) aims();
  std::ranges::move(dns_.aims(), std::back_inserter(aims_));
  return {};
}

Result<void> Bench::traffic() {
  if (auto r = set_up(); !r) return r;
  connects();
  denied();
  packets();
  cold(plan_.many);
  cold(plan_.most);
  bulk();
  for (const auto& variant : variants_)
    if (auto r = variant->check_attached(); !r) return r;
  if (auto r = control_plane(); !r) return r;
  if (!egressd_.empty() && !interrupted()) {
    progress("memory of the daemon");
    auto memory = measure_daemon(*arena_, egressd_, plan_.settle);
    if (!memory) return std::unexpected(memory.error());
    daemon_ = *memory;
  }
  return {};
}

Result<void> Bench::reload() {
  if (egressd_.empty() || interrupted()) return {};
  progress("reloads");
  const std::uint32_t sizes[] = {plan_.few, 1000, plan_.many};
  auto reloads = measure_reloads(*arena_, egressd_, sizes, plan_.reload_rounds);
  if (!reloads) return std::unexpected(reloads.error());
  reloads_ = std::move(*reloads);
  if (!interrupted())
    aims_.push_back({.what = "changed policy of " + short_count(plan_.many) + " rules in force",
                     .unit = "ms",
                     .limit = 100,
                     .measured = estimate(reloads_.back().wall_ms),
                     .tolerance = 100});
  return {};
}

Estimate Bench::shown(const Measure& m, std::size_t variant) const {
  if (m.show == Show::Absolute) return m.samples.absolute(variant);
  return m.samples.against(variant, 0,
                           m.show == Show::Ratio ? Compare::Ratio : Compare::Difference);
}

void Bench::aims() {
  const auto find = [&](const std::string& name) -> const Measure& {
    return *std::ranges::find(measures_, name, &Measure::name);
  };
  const std::size_t base2 = index("base2");
  const std::string many = short_count(plan_.many);
  const std::string most = short_count(plan_.most);
  const auto noise = [&](const Measure& m) {
    return std::fabs(shown(m, base2).value - (m.show == Show::Ratio ? 1.0 : 0.0));
  };

  const Measure& connect = find("connect() + close()");
  for (const std::string& name :
       {"static" + many, "learned" + many, "static" + most, "learned" + most})
    aims_.push_back({"connect() + close(), " + name, "µs", 2, false, shown(connect, index(name)),
                     noise(connect), 2});
  for (const char* what : {"denied connect()", "denied connect(), events read as they come"})
    aims_.push_back({std::string(what) + ", static" + many, "µs", 2, false,
                     shown(find(what), index("static" + many)), 0, 2});
  const Measure& live = find("UDP, connected, one flow");
  for (const std::string& name : {"static" + many, "learned" + most}) {
    aims_.push_back({"live-flow packet over an empty program, " + name, "ns", 25, false,
                     live.samples.against(index(name), index("empty"), Compare::Difference),
                     noise(live), 25});
  }
  // Flat in size: the largest against the smallest, in the same rounds.
  for (const char* kind : {"static", "learned"}) {
    const std::size_t small = index(kind + short_count(plan_.few));
    const std::size_t large = index(kind + most);
    const std::string what = std::string(kind) + most + " over " + kind + short_count(plan_.few);
    aims_.push_back({"connect() + close(), " + what, "µs", 0.5, false,
                     connect.samples.against(large, small, Compare::Difference), noise(connect),
                     0.5});
    aims_.push_back({"live-flow packet, " + what, "ns", 10, false,
                     live.samples.against(large, small, Compare::Difference), noise(live), 10});
  }
  const Measure& cpu = find("bulk TCP, sender's CPU per KB");
  const Measure& wall = find("bulk TCP, throughput");
  for (const std::string& name : {"static" + many, "learned" + most}) {
    aims_.push_back({"bulk TCP, CPU per KB, " + name, "x", 1.03, false, shown(cpu, index(name)),
                     noise(cpu), 0.03});
    aims_.push_back({"bulk TCP, throughput, " + name, "x", 0.98, true, shown(wall, index(name)),
                     noise(wall), 0.02});
  }
  if (daemon_)
    aims_.push_back({"resident memory of egressd, all tags",
                     "MiB",
                     kDaemonMib,
                     false,
                     {daemon_->rss_kib / 1024, 0},
                     0,
                     kDaemonMib});
}

bool Bench::print() const {
  bool complete = true;
  const auto check = [&](const Estimate& e) {
    if (!std::isfinite(e.value) || !std::isfinite(e.error)) complete = false;
  };
  for (const Measure& m : measures_) {
    const Estimate base = m.samples.ran(0) ? m.samples.absolute(0) : Estimate{};
    std::printf("\n%s", m.name.c_str());
    if (m.show == Show::Difference)
      std::printf(" (base: %s %s; rows: paired difference to base, %d rounds)\n",
                  number(base.value).c_str(), m.unit.c_str(), m.rounds);
    else if (m.show == Show::Ratio)
      std::printf(" (base: %s %s; rows: paired ratio to base, %d rounds)\n",
                  number(base.value).c_str(), m.unit.c_str(), m.rounds);
    else
      std::printf(" (absolute, %d rounds)\n", m.rounds);
    for (std::size_t v = m.show == Show::Absolute ? 0 : 1; v < variants_.size(); ++v) {
      if (!m.samples.ran(v)) continue;
      const Estimate e = shown(m, v);
      check(e);
      std::printf("  ");
      cell(variants_[v]->spec().name + (variants_[v]->spec().name == "base2" ? " (A/A)" : ""), 16);
      std::printf(
          "%s\n",
          with_error(e, m.show == Show::Ratio ? "x" : m.unit, m.show == Show::Difference).c_str());
    }
  }
  if (!control_.empty())
    std::printf(
        "\nrules in the kernel: time to replace them all, to learn one address, memory of all "
        "maps\n");
  for (const Control& row : control_) {
    std::printf("  ");
    cell(variants_[row.variant]->spec().name, 16);
    cell("apply " + number(row.apply_ms) + " ms", 20);
    cell(row.learn_ns > 0 ? "learn " + number(row.learn_ns / 1000) + " µs" : "", 18);
    std::printf(
        "maps %s MiB (%s %s MiB)\n", number(static_cast<double>(row.map_bytes) / 1048576).c_str(),
        row.maps.empty() ? "none" : row.maps[0].name.c_str(),
        row.maps.empty() ? "0" : number(static_cast<double>(row.maps[0].bytes) / 1048576).c_str());
    if (!std::isfinite(row.apply_ms)) complete = false;
  }
  if (daemon_) {
    std::printf(
        "\negressd with the tags AzureMachineLearning, AzureKubernetesService, AzurePlatform and "
        "PythonPackages\n  resident %s MiB, of it anonymous %s MiB; peak %s MiB; %d DNS questions "
        "asked%s\n",
        number(daemon_->rss_kib / 1024).c_str(), number(daemon_->anonymous_kib / 1024).c_str(),
        number(daemon_->peak_kib / 1024).c_str(), daemon_->questions,
        daemon_->settled ? "" : "; had NOT settled");
  }
  if (!reloads_.empty())
    std::printf(
        "\nreload: a changed policy file in force (%d rounds; medians, least in brackets)\n",
        plan_.reload_rounds);
  for (const Reloads& row : reloads_) {
    std::printf("  ");
    cell(short_count(row.rules) + " rules", 16);
    const auto least = [](const std::vector<double>& values) {
      return " (" + number(quantile(values, 0)) + ")";
    };
    cell(with_error(estimate(row.wall_ms), "ms", false) + least(row.wall_ms), 28);
    std::printf("of the agent's CPU %s%s\n", with_error(estimate(row.cpu_ms), "ms", false).c_str(),
                least(row.cpu_ms).c_str());
    check(estimate(row.wall_ms));
    check(estimate(row.cpu_ms));
  }
  if (only_ != Only::Reload) complete &= dns_.print();
  std::printf("\naims\n");
  bool noisy = false;
  for (const Aim& aim : aims_) {
    check(aim.measured);
    noisy |= aim.noisy();
    std::printf("  ");
    cell(aim.what, 54);
    cell((aim.at_least ? "≥ " : "≤ ") + number(aim.limit) + " " + aim.unit, 14);
    cell(with_error(aim.measured, aim.unit, false), 22);
    cell(aim.noise > 0 ? "A/A " + number(aim.noise) : "", 12);
    std::printf("%s\n", aim.verdict());
  }
  if (noisy)
    std::printf(
        "\nTOO NOISY: where the A/A row is off by more than a third of what an aim allows, or the "
        "figure's own error is larger than that, the verdict means little.\n");
  if (failures() != 0)
    std::printf("\n%llu calls or runs did not end as they should have\n",
                static_cast<unsigned long long>(failures()));
  return complete;
}

nlohmann::json Bench::json() const {
  nlohmann::json out;
  utsname system{};
  ::uname(&system);
  out["kernel"] = system.release;
  out["cpus"] = std::thread::hardware_concurrency();
  out["failures"] = failures();
  if (only_ != Only::Reload) out["dns"] = dns_.json();
  for (const Measure& m : measures_) {
    nlohmann::json rows = nlohmann::json::object();
    for (std::size_t v = 0; v < variants_.size(); ++v) {
      if (!m.samples.ran(v)) continue;
      const Estimate absolute = m.samples.absolute(v);
      nlohmann::json row = {{"absolute", absolute.value}, {"absolute_error", absolute.error}};
      if (m.show != Show::Absolute) {
        const Estimate e = shown(m, v);
        row[m.show == Show::Ratio ? "ratio" : "difference"] = e.value;
        row["error"] = e.error;
      }
      rows[variants_[v]->spec().name] = std::move(row);
    }
    out["measures"].push_back(
        {{"name", m.name}, {"unit", m.unit}, {"rounds", m.rounds}, {"variants", std::move(rows)}});
  }
  for (const Control& row : control_) {
    nlohmann::json maps = nlohmann::json::object();
    for (const MapMemory& map : row.maps) maps[map.name] = map.bytes;
    out["control"].push_back({{"variant", variants_[row.variant]->spec().name},
                              {"apply_ms", row.apply_ms},
                              {"learn_ns", row.learn_ns},
                              {"map_bytes", row.map_bytes},
                              {"maps", std::move(maps)}});
  }
  if (daemon_)
    out["daemon"] = {{"rss_kib", daemon_->rss_kib},
                     {"anonymous_kib", daemon_->anonymous_kib},
                     {"peak_kib", daemon_->peak_kib},
                     {"dns_questions", daemon_->questions},
                     {"settled", daemon_->settled}};
  for (const Reloads& row : reloads_)
    out["reloads"].push_back({{"rules", row.rules},
                              {"wall_ms", estimate(row.wall_ms).value},
                              {"cpu_ms", estimate(row.cpu_ms).value},
                              {"rounds", row.wall_ms.size()}});
  for (const Aim& aim : aims_)
    out["aims"].push_back({{"what", aim.what},
                           {"unit", aim.unit},
                           {"limit", aim.limit},
                           {"measured", aim.measured.value},
                           {"error", aim.measured.error},
                           {"noise", aim.noise},
                           {"verdict", aim.verdict()}});
  return out;
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{
      "What egressd costs: connections, packets, throughput, memory; against an unfiltered base, "
      "interleaved in one process. Needs root; touches nothing but what it makes."};
  bool quick = false;
  bool only_dns = false;
  bool only_reload = false;
  std::string json_path;
  std::string egressd;
  unsigned seed = std::random_device()();
  app.add_flag("--quick", quick, "Under a minute, with 100k instead of 1M addresses; coarse");
  app.add_flag("--only-dns", only_dns, "Only what learning from DNS costs");
  auto* reload_flag = app.add_flag("--only-reload", only_reload,
                                   "Only the time until a changed policy file is in force");
  app.add_option("--json", json_path, "Write the figures to this file, too");
  auto* egressd_option =
      app.add_option("--egressd", egressd, "The daemon, to measure its memory and its reloads")
          ->check(CLI::ExistingFile);
  reload_flag->needs(egressd_option)->excludes("--only-dns");
  app.add_option("--seed", seed, "Order of slices and destinations");
  CLI11_PARSE(app, argc, argv);
  if (::geteuid() != 0) {
    std::printf("SKIPPED: needs root (namespaces, cgroups, BPF)\n");
    return kExitCannotRun;
  }
  // Before kernel 5.11 maps count against it.
  const rlimit unlimited{RLIM_INFINITY, RLIM_INFINITY};
  ::setrlimit(RLIMIT_MEMLOCK, &unlimited);
  watch_signals();

  Bench bench(quick ? Plan::quick() : Plan(), egressd, seed,
              only_dns      ? Only::Dns
              : only_reload ? Only::Reload
                            : Only::Nothing);
  if (auto r = bench.run(); !r) {
    std::fprintf(stderr, "%s\n", r.error().message.c_str());
    return kExitFailure;
  }
  if (interrupted()) return kExitInterrupted;
  const bool complete = bench.print();
  if (!json_path.empty()) std::ofstream(json_path) << bench.json().dump(2) << '\n';
  if (!bench.daemon_fits()) std::printf("\nthe daemon's memory is not what it must be\n");
  return complete && bench.failures() == 0 && bench.daemon_fits() ? 0 : kExitFailure;
}
