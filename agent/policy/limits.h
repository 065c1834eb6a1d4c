#pragma once

#include <cstddef>

namespace egressd::policy {

// What the kernel programs have room for. The numbers are those of bpf/egressd_abi.h, which this
// folder must not know; daemon/compiler.cpp asserts that they agree. The reader refuses what goes
// over, so that a file that is valid can be put in force.

// Pairs of protocol and port range one address or name is subject to, of all rules together.
inline constexpr std::size_t kMaxEntries = 128;
// Patterns with `*` inside the label directly below one parent.
inline constexpr std::size_t kMaxInLabelSiblings = 16;
// Half of what the kernel's table holds: during a reload the old servers are still in it.
inline constexpr std::size_t kMaxDnsServers = 128;

// Far beyond any use; what costs more than it is worth is refused.
inline constexpr std::size_t kMaxSearchDomains = 1'000;
inline constexpr std::size_t kMaxParameterValues = 1'000;

}  // namespace egressd::policy
