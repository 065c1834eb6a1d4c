#pragma once

#include <cstdint>
#include <span>

#include "tests/bpf/dns_compare.h"

namespace egressd::test {

// The kernel programs and the reference, with one policy. Ends the process with 77 and a reason
// where programs cannot be loaded.
DnsComparison& comparison();

// The query a client would have sent for an answer with this question; empty if it has none.
std::vector<std::uint8_t> query_of(std::span<const std::uint8_t> answer);

// Ends the process, showing the message, unless `difference` is empty.
void agree(const std::string& difference, std::span<const std::uint8_t> message);

// Tells the fuzzer that this input made the kernel do something of this kind: it cannot see the
// kernel's branches. kind < 64, size is taken on a logarithmic scale.
void note(std::uint32_t kind, std::uint64_t size);

}  // namespace egressd::test
