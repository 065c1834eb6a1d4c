#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "net/endpoint.h"
#include "net/ip_address.h"

namespace egressd::audit {

// What is no verdict and yet belongs among the records, in its place: records that are missing, and
// what somebody did that decides what is refused.
struct Notice {
  enum class Event {
    Gap,               // count, cause, reason
    BreakGlassOpened,  // uid, comment, until
    BreakGlassClosed,  // uid and comment of the opening, if known; until: absent
    TrialStarted,      // policy, until
    TrialConfirmed,    // policy
    TrialReplaced,     // policy; the policy file was changed meanwhile
    TrialRolledBack,   // policy, unless a new agent had to do it
    DnsQuestion,       // question; uid of who asked, if known
  };
  // One that was asked further on; of one that was refused there is a Record.
  struct Question {
    std::string name;  // canonical
    std::string type;  // "A", …
    net::IpAddress server;
    net::Protocol protocol = net::Protocol::Udp;
    std::optional<std::uint16_t> source_port;
    std::optional<net::IpAddress> source;
    std::string rcode;                      // what the client got: "NOERROR", …
    std::vector<net::IpAddress> addresses;  // of these, what the policy lets be reachable is
    std::uint64_t size = 0;                 // bytes of the question, 0: not known
    std::uint64_t answer_size = 0;
    std::optional<std::chrono::microseconds> took;
    std::string cgroup;  // path below the cgroup2 mount, empty if not known
  };

  Event event = Event::Gap;
  std::chrono::system_clock::time_point time;  // of a gap: when it began, as far as known
  std::uint64_t count = 0;                     // of a gap: records that are missing
  // audit_log: could not be written; kernel: came faster than they were read; flood: more different
  // ones than are written
  std::string cause;
  std::string reason;                // reason_name() of all of them, empty if not known
  std::optional<std::uint32_t> uid;  // who did it
  std::string comment;               // what they gave as reason
  std::string policy;                // path
  std::optional<Question> question;
  std::optional<std::chrono::system_clock::time_point> until;  // ends by itself then

  static Notice gap(std::chrono::system_clock::time_point time, std::uint64_t count,
                    std::string cause, std::string reason = "");

  // Records a sink loses that loses this.
  [[nodiscard]] std::uint64_t weight() const { return event == Event::Gap ? count : 1; }
  // snake_case, as in the log.
  [[nodiscard]] const char* event_name() const;
  // One line of JSON without the newline; bytes that are not UTF-8 are replaced.
  [[nodiscard]] std::string to_json() const;
  // One line for a person; texts pass through printable().
  [[nodiscard]] std::string to_text() const;
};

}  // namespace egressd::audit
