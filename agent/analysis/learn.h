#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include "analysis/judge.h"
#include "analysis/tally.h"
#include "audit/record.h"
#include "net/endpoint.h"
#include "net/ip_address.h"
#include "policy/policy.h"

namespace egressd::analysis {

struct LearnOptions {
  std::string collection = "learned";  // printable ASCII without quotes and backslashes
  // Ports of names that were asked, but that no connection was seen to.
  std::vector<std::uint16_t> asked_ports = {443};
  // What this allows is left out. Must outlive the learner; nullptr: nothing is allowed yet.
  const policy::Policy* existing = nullptr;
};

struct Learned {
  std::string yaml;                   // ends in a newline; ASCII
  std::vector<std::string> warnings;  // for a person; printable
  std::size_t rules = 0;              // 0: the text is comments only, and no policy
};

struct Endpoint {
  net::Protocol protocol = net::Protocol::Tcp;
  std::uint16_t port = 0;  // host byte order, 0 for protocols without ports
  auto operator<=>(const Endpoint&) const = default;
};

// True for the ports where names are asked: rules for names do not open them.
bool is_dns_port(const Endpoint& endpoint);
// What kind of address it is, if it is one that no rule is made for (loopback, link-local, cloud
// metadata, multicast, …), else nullptr.
const char* never_opened(const net::IpAddress& address);

struct LearnedName {
  std::map<Endpoint, Seen> endpoints;
  std::set<Endpoint> guessed;  // where whoever asked the name went next
  Seen asked;                  // questions refused
  bool is_private = false;     // an address of it is
  std::set<std::string> also_known_as;
};

struct LearnedAddress {
  std::map<Endpoint, Seen> endpoints;
  std::set<std::string> known_as;      // names it had in the records
  std::set<std::string> asked_before;  // names the same process had just asked for
};

// What no rule can come of, for one reason.
struct SetAside {
  static constexpr std::size_t kMaxExamples = 200;
  Seen seen;
  Counts examples{kMaxExamples};
};

// From records of denials to a policy that would have allowed them, and little else. Bounded: what
// is beyond kMax… is counted and reported. The same text for the same records.
class Learner {
 public:
  static constexpr std::size_t kMaxNames = 10'000;
  static constexpr std::size_t kMaxAddresses = 50'000;
  // Pairs of protocol and port of one name or address; below policy::kMaxEntries.
  static constexpr std::size_t kMaxEndpoints = 100;

  explicit Learner(LearnOptions options);

  void add(const audit::Record& record);
  [[nodiscard]] Learned finish() const;

 private:
  // The last question and the last connection without a name: records of one are often written
  // before those of the other, whatever came first.
  struct Process {
    std::string asked;  // empty: nothing yet
    SystemTime asked_at;
    std::optional<net::IpAddress> connected;
    Endpoint endpoint;
    SystemTime connected_at;
  };

  [[nodiscard]] bool is_allowed_already(const audit::Record& record);
  void add_question(const audit::Record& record);
  void add_connection(const audit::Record& record);
  // Remembers who went where just after asking.
  Process* process_of(const audit::Record& record);
  void connect_to_question(const Process& process);
  void add_to_address(const audit::Record& record, const Endpoint& endpoint);
  void add_at(std::map<Endpoint, Seen>& endpoints, const Endpoint& endpoint,
              const audit::Record& record);
  void set_aside(const std::string& why, const audit::Record& record);
  LearnedName* name_of(const std::string& name, const audit::Record& record);

  LearnOptions options_;
  std::optional<Judge> judge_;
  std::map<std::string, LearnedName> names_;
  std::map<net::IpAddress, LearnedAddress> addresses_;
  std::map<std::string, SetAside> aside_;  // by the reason why
  std::set<net::IpAddress> resolvers_;
  std::unordered_map<std::uint32_t, Process> processes_;  // by pid
  Seen all_;
  std::uint64_t left_out_ = 0;  // verdicts beyond the bounds
  std::uint64_t allowed_already_ = 0;
};

}  // namespace egressd::analysis
