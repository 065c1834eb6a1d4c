#include "dns_kernel_fuzz.h"

#include <unistd.h>

#include <bit>
#include <cstdio>
#include <cstdlib>

namespace egressd::test {
namespace {

// Every address of the largest answer, and then some; reading a large map takes long.
constexpr std::uint32_t kLearnedEntries = 512;

constexpr std::size_t kKinds = 64;
constexpr std::size_t kSizes = 16;
__attribute__((section("__libfuzzer_extra_counters"))) std::uint8_t counters[kKinds * kSizes];

DnsKernel& kernel() {
  static const std::unique_ptr<DnsKernel> kKernel = [] {
    std::string why;
    auto loaded = DnsKernel::load(&why, kLearnedEntries);
    if (loaded == nullptr) {
      std::printf("SKIPPED: %s\n", why.c_str());
      std::fflush(stdout);
      ::_exit(77);
    }
    return loaded;
  }();
  return *kKernel;
}

}  // namespace

DnsComparison& comparison() {
  static DnsComparison both = [] {
    DnsComparison made(kernel());
    made.set_policy({{"www.example.org", 1, false},
                     {"private.test", 2, true},
                     {"a-*.both.test", 3, false},
                     {"*-b.both.test", 4, true},
                     {"*.both.test", 5, false},
                     {"no.both.test", EGRESSD_DNS_REFUSED, false},
                     {"*.search.test", EGRESSD_DNS_ASK_ONLY, false},
                     {"*.azureml.ms", 6, false},
                     {"*.blob.core.windows.net", 7, true},
                     {"pypi.org", 8, false},
                     {"*.pythonhosted.org", 9, false}});
    return made;
  }();
  return both;
}

std::vector<std::uint8_t> query_of(std::span<const std::uint8_t> answer) {
  const auto question = read_question(answer);
  if (!question) {
    return {};
  }
  std::vector<std::uint8_t> query{answer[0], answer[1], 1, 0, 0, 1, 0, 0, 0, 0, 0, 0};
  for (const auto& label : question->labels) {
    query.push_back(static_cast<std::uint8_t>(label.size()));
    query.insert(query.end(), label.begin(), label.end());
  }
  query.push_back(0);
  for (const std::uint16_t word : {question->qtype, question->qclass}) {
    query.push_back(static_cast<std::uint8_t>(word >> 8));
    query.push_back(static_cast<std::uint8_t>(word & 0xff));
  }
  return query;
}

void agree(const std::string& difference, std::span<const std::uint8_t> message) {
  if (difference.empty()) {
    return;
  }
  std::fprintf(stderr, "kernel and reference differ: %s\nmessage %s\n", difference.c_str(),
               hex_of(message).c_str());
  std::abort();
}

void note(std::uint32_t kind, std::uint64_t size) {
  const auto step = static_cast<std::size_t>(std::bit_width(size));
  counters[kind % kKinds * kSizes + (step < kSizes ? step : kSizes - 1)] = 1;
}

}  // namespace egressd::test
