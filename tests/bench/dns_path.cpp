#include "dns_path.h"

#include <netinet/in.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <numeric>

#include "stats.h"

namespace egressd::bench {
namespace {

// Names and addresses of the hot figures, in every policy.
constexpr std::uint32_t kExact = 2;
constexpr std::uint32_t kWild = 3;
constexpr std::uint16_t kId = 0x1234;
constexpr const char* kUnknown = "www.example.com";
// Records of one slice: below what wakes the agent, so that it is never woken.
constexpr std::size_t kEventBytes = 200u << 10;
constexpr std::uint32_t kPackets = 20'000;
constexpr std::uint32_t kMessages = 1'000;

// ns a packet of a live flow may cost, and what counts as nothing.
constexpr double kLivePacket = 25;
constexpr double kNothing = 5;

constexpr const char* kAnswer1 = "answer, 1 A";
constexpr const char* kAnswer30 = "answer, 30 A";
constexpr const char* kAgain = "empty program again (A/A)";
constexpr const char* kKnownAnswer = "answer, 1 A, known address";
constexpr const char* kFreshAnswer = "answer, 1 A, fresh address";
constexpr const char* kFreshAnswer30 = "answer, 30 A, fresh addresses";
constexpr const char* kEgressPacket = "TCP packet of a live flow, egressd_egress";
constexpr const char* kOutPacket = "TCP packet, egressd_dns_out";
constexpr const char* kIngressPacket = "TCP packet, egressd_ingress";
constexpr const char* kInPacket = "TCP packet, egressd_dns_in";
constexpr const char* kEgressUdp = "UDP packet of a live flow, egressd_egress";
constexpr const char* kOutUdp = "UDP packet, egressd_dns_out";
constexpr const char* kInUdp = "UDP packet, egressd_dns_in";

std::vector<std::uint32_t> addresses(std::uint32_t first, std::uint32_t count) {
  std::vector<std::uint32_t> all(count);
  for (std::uint32_t i = 0; i < count; ++i) all[i] = public_address(first + i);
  return all;
}

std::uint32_t messages_of(const Frame& frame) {
  return std::min(kMessages, static_cast<std::uint32_t>(
                                 kEventBytes / (sizeof(egressd_dns_event) + frame.size())));
}

}  // namespace

struct DnsPath::HotRun {
  // How a figure is made of the runs of one round.
  enum class Kind : std::uint8_t { Base, Difference, Answer } kind = Kind::Difference;
  const char* name = nullptr;
  const char* base = nullptr;  // name of the run to subtract
  Probe probe;
  Frame frame;
  std::uint32_t repeat = kPackets;
};

std::vector<DnsPath::HotRun> DnsPath::hot_runs() {
  using Kind = HotRun::Kind;
  using Through = Probe::Through;
  const Frame tcp_out = ordinary_frame(IPPROTO_TCP, Way::Out);
  const Frame tcp_in = ordinary_frame(IPPROTO_TCP, Way::In);
  const Frame udp_out = ordinary_frame(IPPROTO_UDP, Way::Out);
  const Frame udp_in = ordinary_frame(IPPROTO_UDP, Way::In);
  std::vector<HotRun> runs;
  const auto base = [&](const char* name, Probe probe, const Frame& frame) {
    runs.push_back({.kind = Kind::Base, .name = name, .probe = probe, .frame = frame});
  };
  const auto packet = [&](const char* name, const char* from, Probe probe, const Frame& frame) {
    runs.push_back({.name = name, .base = from, .probe = probe, .frame = frame});
  };
  const auto message = [&](Kind kind, const char* name, const char* from, Probe probe,
                           const Frame& frame) {
    runs.push_back({.kind = kind,
                    .name = name,
                    .base = from,
                    .probe = probe,
                    .frame = frame,
                    .repeat = messages_of(frame)});
  };

  base("in", {.program = Program::EmptyIn}, tcp_in);
  base("out", {.program = Program::EmptyOut}, tcp_out);
  packet(kAgain, "in", {.program = Program::EmptyIn}, tcp_in);

  for (const auto& [name, k] : {std::pair{"question, exact name", kExact},
                                std::pair{"question, name below a wildcard", kWild}})
    message(Kind::Difference, name, "out",
            {.program = Program::DnsOut, .outcome = EGRESSD_DNS_ASKED},
            question_frame(name_number(k), kId));
  message(Kind::Difference, "question, name not in the policy", "out",
          {.program = Program::DnsOut, .outcome = EGRESSD_DNS_DENIED_NAME, .verdict = 0},
          question_frame(kUnknown, kId));

  const auto answer = [&](const char* name, std::uint32_t cnames, std::uint32_t records) {
    message(Kind::Answer, name, "answer",
            {.program = Program::DnsIn,
             .through = Through::Question,
             .steps = BENCH_REMEMBER,
             .name = kExact,
             .id = kId,
             .outcome = EGRESSD_DNS_LEARNED},
            answer_frame(name_number(kExact), kId, cnames, addresses(1, records)));
  };
  const Frame any = answer_frame(name_number(kExact), kId, 0, addresses(1, 1));
  base("answer", {.program = Program::EmptyIn, .through = Through::Question}, any);
  base("remember",
       {.program = Program::EmptyIn,
        .through = Through::Question,
        .steps = BENCH_REMEMBER | BENCH_FORGET,
        .name = kExact,
        .id = kId},
       any);
  answer(kAnswer1, 0, 1);
  answer("answer, 4 A", 0, 4);
  answer(kAnswer30, 0, 30);
  answer("answer, 3 CNAME and 2 A", 3, 2);
  message(Kind::Difference, "answer nobody asked for", "in",
          {.program = Program::DnsIn, .outcome = EGRESSD_DNS_NOT_ASKED}, any);

  for (const auto& [name, from, protocol, frame] :
       {std::tuple{kEgressPacket, "tcp flow", IPPROTO_TCP, &tcp_out},
        std::tuple{kEgressUdp, "udp flow", IPPROTO_UDP, &udp_out}}) {
    Probe probe{.program = Program::EmptyOut, .through = Through::Flow};
    probe.protocol = static_cast<std::uint8_t>(protocol);
    base(from, probe, *frame);
    probe.program = Program::Egress;
    packet(name, from, probe, *frame);
  }
  packet(kOutPacket, "out", {.program = Program::DnsOut}, tcp_out);
  packet(kOutUdp, "out", {.program = Program::DnsOut}, udp_out);
  packet(kIngressPacket, "in", {.program = Program::Ingress}, tcp_in);
  packet(kInPacket, "in", {.program = Program::DnsIn}, tcp_in);
  packet(kInUdp, "in", {.program = Program::DnsIn}, udp_in);
  return runs;
}

void DnsPath::add(Rows& rows, const std::string& name, const std::string& unit, bool difference,
                  std::size_t world, double value) const {
  auto row = std::ranges::find(rows, name, &Row::name);
  if (row == rows.end())
    row = rows.insert(rows.end(), {.name = name,
                                   .unit = unit,
                                   .difference = difference,
                                   .values = std::vector<std::vector<double>>(plan_.sizes.size())});
  row->values[world].push_back(value);
}

void DnsPath::hot_round(std::size_t world, const std::vector<HotRun>& runs, Rows& to) {
  DnsWorld& w = *worlds_[world];
  std::vector<std::size_t> order(runs.size());
  std::iota(order.begin(), order.end(), 0);
  std::ranges::shuffle(order, random_);
  std::vector<double> ns(runs.size());
  w.inside([&] {
    for (const std::size_t i : order) {
      ns[i] = w.run(runs[i].probe, runs[i].frame, runs[i].repeat);
      w.drain_events();
    }
    w.check_counts();
  });
  const auto of = [&](const std::string& name) {
    return ns[static_cast<std::size_t>(
        std::ranges::find_if(runs, [&](const HotRun& r) { return r.name == name; }) -
        runs.begin())];
  };
  add(to, "empty program", "ns", false, world, of("in"));
  for (std::size_t i = 0; i < runs.size(); ++i) {
    if (runs[i].kind == HotRun::Kind::Base) continue;
    double value = ns[i] - of(runs[i].base);
    // What was put there for the answer to find is not part of it; half of putting and taking away,
    // as the answer takes it away itself.
    if (runs[i].kind == HotRun::Kind::Answer) value -= (of("remember") - of("answer")) / 2;
    add(to, runs[i].name, "ns", true, world, value);
  }
}

// One run each: of a name of the policy at random, between system calls. Not only the entries are
// cold then, much of the code is, too.
void DnsPath::cold_round(std::size_t world) {
  DnsWorld& w = *worlds_[world];
  enum Kind : std::uint8_t {
    Empty,
    Again,
    Question,
    Wrapped,
    Remember,
    Known,
    Fresh,
    Fresh30,
    End
  };
  constexpr Probe kEmpty{.program = Program::EmptyIn};
  constexpr Probe kQuestion{.program = Program::DnsOut, .outcome = EGRESSD_DNS_ASKED};
  Probe answer{.program = Program::DnsIn,
               .through = Probe::Through::Question,
               .steps = BENCH_REMEMBER,
               .outcome = EGRESSD_DNS_LEARNED};
  std::vector<std::vector<double>> ns(End);
  std::vector<Kind> order;
  for (std::uint8_t kind = Empty; kind < End; ++kind)
    // Fewer of those that learn most: no name is to reach its quota.
    order.insert(order.end(), static_cast<std::size_t>(plan_.cold_runs / (kind == Fresh30 ? 5 : 1)),
                 static_cast<Kind>(kind));
  std::ranges::shuffle(order, random_);
  std::uniform_int_distribution<std::uint32_t> any(1, w.size());
  w.inside([&] {
    int run = 0;
    for (const Kind kind : order) {
      const std::uint32_t k = any(random_);
      const std::string name = name_number(k);
      const auto id = static_cast<std::uint16_t>(random_());
      Probe probe = kEmpty;
      Frame frame;
      if (kind == Question) {
        probe = kQuestion;
        frame = question_frame(name, id);
      } else {
        const std::uint32_t records = kind == Fresh30 ? 30 : 1;
        std::uint32_t first = any(random_);
        if (kind == Fresh || kind == Fresh30) {
          first = fresh_[world] + 1;
          fresh_[world] += records;
        }
        frame = answer_frame(name, id, 0, addresses(first, records));
        if (kind >= Wrapped) probe = answer;
        if (kind == Wrapped || kind == Remember) {
          probe.program = Program::EmptyIn;
          probe.steps = kind == Wrapped ? 0 : BENCH_REMEMBER | BENCH_FORGET;
          probe.outcome = ~0u;
        }
        probe.name = k;
        probe.id = id;
      }
      ns[kind].push_back(w.run(probe, frame, 1));
      if (++run % 256 == 0) w.drain_events();
    }
    w.drain_events();
    w.check_counts();
  });
  const double empty = median(ns[Empty]);
  const double wrapped = median(ns[Wrapped]);
  const double remember = (median(ns[Remember]) - wrapped) / 2;
  const auto of = [&](Kind kind) { return median(ns[kind]) - wrapped - remember; };
  // Means: memory for new entries is taken by the dozen, now and then.
  const auto per_second = [&](Kind kind, double records) {
    const double sum = std::accumulate(ns[kind].begin(), ns[kind].end(), 0.0);
    return records * 1e3 / (sum / static_cast<double>(ns[kind].size()) - wrapped - remember);
  };
  add(cold_, "empty program", "ns", false, world, empty);
  add(cold_, kAgain, "ns", true, world, median(ns[Again]) - empty);
  add(cold_, "question", "ns", true, world, median(ns[Question]) - empty);
  add(cold_, kKnownAnswer, "ns", true, world, of(Known));
  add(cold_, kFreshAnswer, "ns", true, world, of(Fresh));
  add(cold_, kFreshAnswer30, "ns", true, world, of(Fresh30));
  add(cold_, "addresses learned, 1 per answer", "M/s", false, world, per_second(Fresh, 1));
  add(cold_, "addresses learned, 30 per answer", "M/s", false, world, per_second(Fresh30, 30));
}

// Real packets, one at a time: nothing is in the caches but by chance.
void DnsPath::real_round(std::size_t world) {
  constexpr std::size_t kExchanges = 200;
  DnsWorld& w = *worlds_[world];
  std::uniform_int_distribution<std::uint32_t> any(1, w.size());
  std::vector<std::string> names(kExchanges);
  for (std::string& name : names) name = name_number(any(random_));
  DnsWorld::RunTimes dns{};
  DnsWorld::RunTimes live{};
  w.inside([&] {
    dns = w.ask(names);
    live = w.echo(kExchanges);
    w.drain_events();
    w.check_counts();
  });
  const auto of = [](const DnsWorld::RunTimes& times, Program program) {
    const bool out = program == Program::DnsOut || program == Program::Egress;
    return times[static_cast<std::size_t>(program)] -
           times[static_cast<std::size_t>(out ? Program::EmptyOut : Program::EmptyIn)];
  };
  add(real_, "empty program, outwards", "ns", false, world,
      live[static_cast<std::size_t>(Program::EmptyOut)]);
  add(real_, "empty program, inwards", "ns", false, world,
      live[static_cast<std::size_t>(Program::EmptyIn)]);
  add(real_, "question, egressd_dns_out", "ns", true, world, of(dns, Program::DnsOut));
  add(real_, "answer, 1 A, fresh address, egressd_dns_in", "ns", true, world,
      of(dns, Program::DnsIn));
  add(real_, "UDP packet of a live flow, egressd_egress", "ns", true, world,
      of(live, Program::Egress));
  add(real_, "UDP packet of a live flow, egressd_dns_out", "ns", true, world,
      of(live, Program::DnsOut));
  add(real_, "UDP packet of a live flow, egressd_ingress", "ns", true, world,
      of(live, Program::Ingress));
  add(real_, "UDP packet of a live flow, egressd_dns_in", "ns", true, world,
      of(live, Program::DnsIn));
}

Result<void> DnsPath::run(const Arena& arena, int first_index, const Cpus& cpus,
                          const std::function<void(const std::string&)>& progress) {
  const auto responder = Responder::create(arena, cpus.sink);
  if (!responder) return std::unexpected(responder.error());
  for (const std::uint32_t size : plan_.sizes) {
    if (interrupted()) return {};
    auto world = DnsWorld::create(arena, size, first_index++, cpus.sender, plan_.applies);
    if (!world) return std::unexpected(world.error());
    worlds_.push_back(std::move(*world));
    fresh_.push_back(size + 1000);  // beyond what the hot runs learn
    progress("in force: " + short_count(size) + " names and addresses");
  }
  const std::vector<HotRun> runs = hot_runs();
  std::vector<std::size_t> order(worlds_.size());
  std::iota(order.begin(), order.end(), 0);
  Rows forgotten;
  for (const std::size_t world : order) hot_round(world, runs, forgotten);
  progress("DNS programs, hot, " + std::to_string(plan_.hot_rounds) + " rounds");
  for (int round = 0; round < plan_.hot_rounds && !interrupted(); ++round) {
    std::ranges::shuffle(order, random_);
    for (const std::size_t world : order) hot_round(world, runs, hot_);
  }
  progress("DNS programs, cold, " + std::to_string(plan_.cold_rounds) + " rounds");
  for (int round = 0; round < plan_.cold_rounds && !interrupted(); ++round) {
    std::ranges::shuffle(order, random_);
    for (const std::size_t world : order) cold_round(world);
  }
  progress("DNS over the network, " + std::to_string(plan_.real_rounds) + " rounds");
  for (int round = 0; round < plan_.real_rounds && !interrupted(); ++round) {
    std::ranges::shuffle(order, random_);
    for (const std::size_t world : order) real_round(world);
  }
  return {};
}

std::uint64_t DnsPath::failures() const {
  std::uint64_t all = 0;
  for (const auto& world : worlds_) all += world->failures();
  return all;
}

Estimate DnsPath::figure(const Rows& rows, const std::string& name, std::size_t world) const {
  const auto row = std::ranges::find(rows, name, &Row::name);
  return estimate(row == rows.end() ? std::vector<double>() : row->values[world]);
}

std::vector<Aim> DnsPath::aims() const {
  std::vector<Aim> all;
  const auto aim = [&](const Rows& rows, const std::string& name, std::size_t world, double limit,
                       double tolerance, const char* state) {
    Estimate e = figure(rows, name, world);
    const double scale = limit >= 1000 ? 1000 : 1;
    e.value /= scale;
    e.error /= scale;
    all.push_back({.what = name + ", " + state + short_count(plan_.sizes[world]),
                   .unit = scale > 1 ? "µs" : "ns",
                   .limit = limit / scale,
                   .measured = e,
                   .noise = std::fabs(figure(rows, kAgain, world).value) / scale,
                   .tolerance = tolerance / scale});
  };
  if (worlds_.empty()) return all;
  const std::size_t last = worlds_.size() - 1;
  for (const std::size_t world : {std::size_t{0}, last}) {
    aim(hot_, kAnswer1, world, 1000, 1000, "hot, ");
    aim(hot_, kAnswer30, world, 3000, 3000, "hot, ");
  }
  aim(cold_, kKnownAnswer, last, 1000, 1000, "cold, ");
  aim(cold_, kFreshAnswer, last, 1000, 1000, "cold, ");
  aim(cold_, kFreshAnswer30, last, 3000, 3000, "cold, ");
  for (const char* name : {kEgressPacket, kEgressUdp, kOutPacket, kOutUdp})
    aim(hot_, name, last, kLivePacket, kLivePacket, "hot, ");
  for (const char* name : {kIngressPacket, kInPacket, kInUdp})
    aim(hot_, name, last, kNothing, kNothing, "hot, ");
  return all;
}

bool DnsPath::print_rows(const Rows& rows) const {
  bool complete = !rows.empty();
  std::printf("  ");
  cell("", 46);
  for (const std::uint32_t size : plan_.sizes) cell(short_count(size), 20);
  std::printf("\n");
  for (const Row& row : rows) {
    std::printf("  ");
    cell(row.name, 46);
    for (const auto& values : row.values) {
      const Estimate e = estimate(values);
      complete &= std::isfinite(e.value) && std::isfinite(e.error);
      cell(with_error(e, row.unit, row.difference), 20);
    }
    std::printf("\n");
  }
  return complete;
}

bool DnsPath::print() const {
  std::printf(
      "\nDNS programs, hot: one name, the same addresses (ns per run; rows with a sign: over an "
      "empty program; %d rounds)\nnames in the policy and addresses learned:\n",
      plan_.hot_rounds);
  bool complete = print_rows(hot_);
  std::printf(
      "\nDNS programs, cold: a name of the policy at random, one run per call (medians of %d runs "
      "in each of %d rounds)\n",
      plan_.cold_runs, plan_.cold_rounds);
  complete &= print_rows(cold_);
  std::printf(
      "\nDNS programs at work between two namespaces, mean of every run as the kernel measures it "
      "(bpf_enable_stats; %d rounds)\n",
      plan_.real_rounds);
  complete &= print_rows(real_);
  std::printf("\nnames in the kernel: time to load them all, to learn one address, memory\n");
  for (const auto& world : worlds_) {
    const auto bytes = [&](const char* name) {
      const auto map = std::ranges::find(world->maps(), name, &MapMemory::name);
      return map == world->maps().end() ? std::nan("") : static_cast<double>(map->bytes);
    };
    double total = 0;
    for (const MapMemory& map : world->maps()) total += static_cast<double>(map.bytes);
    std::printf("  ");
    cell(short_count(world->size()) + " names", 16);
    cell("apply " + number(world->apply_ms()) + " ms", 20);
    cell("learn " + number(world->learn_ns() / 1000) + " µs", 18);
    std::printf("maps %s MiB (names %s MiB, learned %s MiB)\n", number(total / 1048576).c_str(),
                number((bytes("egressd_dnodes") + bytes("egressd_names")) / 1048576).c_str(),
                number(bytes("egressd_learned") / 1048576).c_str());
    complete &= std::isfinite(world->apply_ms()) && std::isfinite(bytes("egressd_dnodes")) &&
                std::isfinite(bytes("egressd_learned"));
  }
  return complete && worlds_.size() == plan_.sizes.size();
}

nlohmann::json DnsPath::json_rows(const Rows& rows) const {
  nlohmann::json out = nlohmann::json::array();
  for (const Row& row : rows) {
    nlohmann::json columns = nlohmann::json::object();
    for (std::size_t world = 0; world < row.values.size(); ++world) {
      const Estimate e = estimate(row.values[world]);
      columns[short_count(plan_.sizes[world])] = {{"value", e.value}, {"error", e.error}};
    }
    out.push_back({{"name", row.name},
                   {"unit", row.unit},
                   {"over_empty", row.difference},
                   {"sizes", std::move(columns)}});
  }
  return out;
}

nlohmann::json DnsPath::json() const {
  nlohmann::json out = {
      {"hot", json_rows(hot_)}, {"cold", json_rows(cold_)}, {"real", json_rows(real_)}};
  for (const auto& world : worlds_) {
    nlohmann::json maps = nlohmann::json::object();
    for (const MapMemory& map : world->maps()) maps[map.name] = map.bytes;
    out["names"].push_back({{"names", world->size()},
                            {"apply_ms", world->apply_ms()},
                            {"learn_ns", world->learn_ns()},
                            {"maps", std::move(maps)}});
  }
  return out;
}

}  // namespace egressd::bench
