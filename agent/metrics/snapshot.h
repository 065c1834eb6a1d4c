#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"

namespace egressd::metrics {

// A count under one or more names; see exposition.cpp for what the labels are called.
struct Count {
  std::string name;
  std::uint64_t value = 0;
};

// Counted in the kernel since the programs were loaded.
struct KernelCounts {
  struct Verdicts {
    std::string reason;
    bool denied = false;
    std::uint64_t value = 0;
  };
  std::vector<Verdicts> verdicts;
  std::vector<Count> dns_outcomes;
  std::vector<Count> ring_lost;  // by ring
  std::uint64_t ring_sent = 0;   // denial records
  std::uint64_t storage_failed = 0;
};

// Of DNS questions that go through the agent, since it began to lead them there.
struct DnsProxyCounts {
  std::vector<Count> questions;  // by result
  std::uint64_t under_way = 0;   // clients that wait for an answer
  std::uint64_t held = 0;        // answers that waited for their addresses to be reachable
  double held_seconds = 0;       // all of them together
};

// What is known of the agent and its kernel side at one moment. Names of the policy are in it,
// those of processes, addresses and questions never: whoever may connect can read it.
struct Snapshot {
  BootTime taken{0};
  double started = 0;  // seconds since the epoch, as all wall clock times here
  std::string version;

  std::uint32_t generation = 0;
  std::string policy_hash;
  bool enforce = false;
  bool last_reload_worked = true;
  std::uint64_t break_glass_openings = 0;  // seen by this agent
  double break_glass_seconds = 0;          // until it closes by itself; 0: closed
  bool on_trial = false;                   // the policy in force
  double last_good_reload = 0;

  struct Program {
    std::string name;
    bool attached = false;
    std::string detail;
    bool needed = true;  // else the others enforce the whole policy without it
  };
  std::vector<Program> programs;
  // Why what the policy says does not hold, or not all of it; empty: it does.
  std::vector<std::string> unready;

  // Absent where the kernel could not be asked: a counter must not seem to begin anew.
  std::optional<KernelCounts> kernel;

  struct MapFill {
    std::string map;
    std::uint64_t entries = 0;
    std::uint64_t max_entries = 0;
  };
  std::vector<MapFill> maps;

  // Of the policy in force. Unlike the verdicts these are counted from records: what the rings
  // lost is missing.
  struct RuleDenials {
    std::string collection;
    std::string rule;
    std::uint64_t denied = 0;
    std::uint64_t would_deny = 0;
  };
  std::vector<RuleDenials> rule_denials;
  std::uint64_t audit_lost = 0;

  std::optional<DnsProxyCounts> dns_proxy;  // absent: DNS does not go through the agent

  std::uint64_t names = 0;
  std::uint64_t names_unresolved = 0;
  std::uint64_t names_failing = 0;
  std::vector<Count> failures;  // consecutive, by name of the policy
};

}  // namespace egressd::metrics
