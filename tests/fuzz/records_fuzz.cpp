#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <sstream>
#include <string>

#include "analysis/learn.h"
#include "analysis/record_stream.h"
#include "analysis/replay.h"
#include "analysis/report.h"
#include "policy/parser.h"

// Records are read from files anybody may have written. Whatever they say: what is learned is a
// valid policy (or comments only), and the page has no markup of theirs.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace egressd;
  static const auto kPolicy = policy::parse_policy(
      "version: 1\nmode: enforce\ncollections:\n  - {name: c, priority: 100, action: allow, rules: "
      "[{name: r, fqdns: [a.example.com, '*.example.net'], ports: [443]}, "
      "{name: n, addresses: [198.51.100.0/24], ports: ['*'], protocols: [any]}]}\n",
      "policy.yaml", policy::TagCatalog::builtin());
  if (!kPolicy) std::abort();
  analysis::Learner learner({});
  analysis::Learner rest({.existing = &kPolicy->policy});
  analysis::Replay replay(kPolicy->policy);
  analysis::Report report;
  analysis::StreamStats stats;
  std::istringstream in(std::string(reinterpret_cast<const char*>(data), size));
  analysis::read_records(in, stats,
                         {.record =
                              [&](const audit::Record& record) {
                                learner.add(record);
                                rest.add(record);
                                replay.add(record);
                                report.add(record);
                              },
                          .gap = [&](std::uint64_t lost) { report.add_gap(lost); }});
  for (const auto* one : {&learner, &rest}) {
    const auto learned = one->finish();
    const auto parsed =
        policy::parse_policy(learned.yaml, "learned", policy::TagCatalog::builtin());
    if (learned.rules > 0 && !parsed) std::abort();
  }
  (void)replay.changes();
  const auto page = report.html(stats, &kPolicy->policy);
  if (page.find("<script") != std::string::npos || page.find("<img") != std::string::npos)
    std::abort();
  return 0;
}
