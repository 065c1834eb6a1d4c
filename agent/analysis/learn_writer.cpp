#include "analysis/learn_writer.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "analysis/wildcards.h"
#include "policy/public_suffix.h"

namespace egressd::analysis {
namespace {

constexpr std::size_t kMaxRuleName = 100;  // the file format takes 128 bytes
constexpr std::size_t kShownNames = 5;
constexpr std::size_t kShownExamples = 20;
constexpr std::size_t kMaxComment = 300;

// Ports with the same protocols, protocols with the same ports: what one rule can say.
struct Shape {
  std::vector<net::Protocol> protocols;
  std::vector<std::uint16_t> ports;  // ascending; empty for protocols without ports
};

std::vector<Shape> shapes_of(const std::set<Endpoint>& endpoints) {
  std::map<std::uint16_t, std::vector<net::Protocol>> by_port;
  for (const auto& e : endpoints) by_port[e.port].push_back(e.protocol);
  std::map<std::vector<net::Protocol>, std::vector<std::uint16_t>> by_protocols;
  for (auto& [port, protocols] : by_port) by_protocols[std::move(protocols)].push_back(port);
  std::vector<Shape> shapes;
  for (auto& [protocols, ports] : by_protocols) shapes.push_back({protocols, std::move(ports)});
  return shapes;
}

std::string join(const std::vector<std::string>& words) {
  std::string out;
  for (const auto& word : words) out += (out.empty() ? "" : ", ") + word;
  return out;
}

std::string first_of(const std::vector<std::string>& words, std::size_t shown) {
  std::vector<std::string> some;
  for (std::size_t i = 0; i < std::min(shown, words.size()); ++i)
    some.push_back(audit::printable(words[i]));
  std::string out = join(some);
  if (words.size() > shown) out += " and " + std::to_string(words.size() - shown) + " more";
  return out;
}

template <typename Range>
std::vector<std::string> to_vector(const Range& range) {
  return {range.begin(), range.end()};
}

std::string port_list(const std::vector<std::uint16_t>& ports) {
  std::vector<std::string> out;
  for (std::size_t i = 0; i < ports.size();) {
    std::size_t last = i;
    while (last + 1 < ports.size() && ports[last + 1] == ports[last] + 1) ++last;
    out.push_back(last == i
                      ? std::to_string(ports[i])
                      : '"' + std::to_string(ports[i]) + '-' + std::to_string(ports[last]) + '"');
    i = last + 1;
  }
  return join(out);
}

std::string protocol_list(const std::vector<net::Protocol>& protocols) {
  std::vector<std::string> out;
  for (const auto p : protocols) out.push_back(net::to_string(p));
  return join(out);
}

// "tcp 443", "tcp, udp 53 and others", "icmp"
std::string shape_name(const Shape& shape) {
  std::string out = protocol_list(shape.protocols);
  if (!shape.ports.empty() && shape.ports.front() != 0)
    out += " " + std::to_string(shape.ports.front());
  if (shape.ports.size() > 1) out += " and others";
  return out;
}

// The domain somebody registered: the public suffix and one label.
std::string registered_domain(const std::string& name) {
  auto labels = policy::public_suffix_labels(name) + 1;
  for (std::size_t at = name.size(); at-- > 0;)
    if (name[at] == '.' && --labels == 0) return name.substr(at + 1);
  return name;
}

class Writer {
 public:
  explicit Writer(const LearnInput& input) : in_(input) {}

  Learned run() {
    collect_names();
    for (const auto& [key, pattern] : patterns_) write_pattern(key.first, key.second, pattern);
    write_addresses();
    if (in_.left_out > 0)
      warn(counted(in_.left_out, "denial") +
           " left out: more names, addresses or ports than anybody reviews. Leave out what is not "
           "meant (a port scan?) and learn from the rest");
    Learned out;
    out.rules = rules_;
    out.yaml = head() + body_;
    if (rules_ == 0) out.yaml = commented_head() + body_;
    out.warnings = std::move(warnings_);
    return out;
  }

 private:
  struct Pattern {
    std::set<Endpoint> endpoints;
    std::set<std::string> names;
  };

  // Warnings are comments of the file, too.
  void warn(const std::string& text) { warnings_.push_back(text); }

  std::set<Endpoint> endpoints_of(const LearnedName& name) const {
    std::set<Endpoint> out;
    for (const auto& [endpoint, seen] : name.endpoints) out.insert(endpoint);
    if (out.empty()) out = name.guessed;
    if (out.empty())
      for (const auto port : in_.options.asked_ports) out.insert({net::Protocol::Tcp, port});
    return out;
  }

  // Names with a port in common come under one wildcard for that port: no name gets a port that
  // only others used.
  void collect_names() {
    std::map<std::string, std::set<Endpoint>> by_domain;
    for (const auto& [text, name] : in_.names)
      by_domain[registered_domain(text)].merge(endpoints_of(name));
    std::map<std::pair<Endpoint, bool>, std::vector<std::string>> buckets;
    for (const auto& [text, name] : in_.names) {
      // All rules a name is subject to count against one limit.
      const bool crowded = by_domain[registered_domain(text)].size() > Learner::kMaxEndpoints;
      for (const auto& endpoint : endpoints_of(name)) {
        if (crowded)
          add(text, name.is_private, endpoint, text);
        else
          buckets[{endpoint, name.is_private}].push_back(text);
      }
    }
    std::set<WildcardRefusal> refusals;
    std::set<std::string> private_wildcards;
    // Private ones first: a wildcard that may lead to private addresses is not spread over others.
    for (const bool is_private : {true, false}) {
      for (const auto& [key, names] : buckets) {
        if (key.second != is_private) continue;
        auto grouped = group_names(names);
        for (const auto& group : grouped.groups) {
          if (is_private) private_wildcards.insert(group.pattern);
          const bool clash = !is_private && private_wildcards.contains(group.pattern);
          for (const auto& name : group.names)
            add(clash ? name : group.pattern, is_private, key.first, name);
        }
        refusals.insert(grouped.refusals.begin(), grouped.refusals.end());
      }
    }
    std::map<std::pair<std::string, std::string>, std::size_t> most;
    for (const auto& r : refusals) {
      auto& n = most[{r.suffix, r.platform}];
      n = std::max(n, r.names);
    }
    for (const auto& [where, names] : most)
      warn(counted(names, "name") + " below " + where.first + " kept one by one: " + where.second +
           " is a shared platform, where *." + where.first + " would open the names of strangers");
  }

  void add(const std::string& pattern, bool is_private, const Endpoint& endpoint,
           const std::string& name) {
    auto& entry = patterns_[{pattern, is_private}];
    entry.endpoints.insert(endpoint);
    entry.names.insert(name);
  }

  void comment(std::string text, bool commented_out = false) {
    if (text.size() > kMaxComment) text = text.substr(0, kMaxComment) + " ...";
    body_ += "      # " + std::string(commented_out ? "# " : "") + text + "\n";
  }

  void write_pattern(const std::string& text, bool is_private, const Pattern& pattern) {
    for (const auto& shape : shapes_of(pattern.endpoints)) {
      Seen connections, questions;
      std::size_t unseen = 0, guessed = 0;
      std::set<std::string> also;
      for (const auto& member : pattern.names) {
        const auto& name = in_.names.at(member);
        bool there = false;
        for (const auto& [endpoint, seen] : name.endpoints) {
          there = true;
          if (std::ranges::find(shape.protocols, endpoint.protocol) != shape.protocols.end() &&
              std::ranges::find(shape.ports, endpoint.port) != shape.ports.end())
            connections.merge(seen);
        }
        questions.merge(name.asked);
        if (!there) ++(name.guessed.empty() ? unseen : guessed);
        also.insert(name.also_known_as.begin(), name.also_known_as.end());
      }
      if (connections.count > 0) comment(connections.to_text());
      if (questions.count > 0) comment(questions.to_text("refused DNS question"));
      const bool wildcard = text.starts_with('*');
      const auto of = [&](std::size_t n) {
        return wildcard ? "of " + counted(n, "name") : std::string("of it");
      };
      // Of this rule, if it has one of the ports that stand for the unknown.
      const bool has_guess = std::ranges::any_of(in_.options.asked_ports, [&](std::uint16_t port) {
        return std::ranges::find(shape.ports, port) != shape.ports.end();
      });
      if (unseen > 0 && has_guess)
        comment("No connection " + of(unseen) + " was seen: port " +
                port_list(in_.options.asked_ports) + " is a guess.");
      if (guessed > 0)
        comment("No connection " + of(guessed) +
                " was seen by name: the ports are those its askers went to next.");
      if (wildcard) comment("Seen: " + first_of(to_vector(pattern.names), kShownNames));
      if (!also.empty()) comment("Same address: " + first_of(to_vector(also), kShownNames));
      if (is_private) comment("allowPrivate: it leads to private addresses. Is that meant?");
      rule_name(text, shape_name(shape), "");
      body_ += "        fqdns: [\"" + text + "\"]\n        ports: [" + port_list(shape.ports) +
               "]\n        protocols: [" + protocol_list(shape.protocols) + "]\n";
      if (is_private) body_ += "        allowPrivate: true\n";
      ++rules_;
    }
  }

  // A name no other rule here has.
  void rule_name(const std::string& wanted, const std::string& more, const std::string& prefix) {
    std::string name = wanted.substr(0, kMaxRuleName);
    if (used_.contains(name))
      name = wanted.substr(0, kMaxRuleName - more.size() - 3) + " (" + more + ")";
    const std::string base = name;
    for (int n = 2; !used_.insert(name).second; ++n) name = base + " " + std::to_string(n);
    body_ += "      " + prefix + "- name: \"" + name + "\"\n";
  }

  void write_addresses() {
    std::map<Endpoint, std::vector<net::IpAddress>> open;
    // By what is said against them.
    std::map<std::pair<std::string, Endpoint>, std::vector<net::IpAddress>> closed;
    for (const auto& [address, learned] : in_.addresses) {
      for (const auto& [endpoint, seen] : learned.endpoints) {
        if (const char* kind = never_opened(address))
          closed[{kind, endpoint}].push_back(address);
        else if (is_dns_port(endpoint))
          closed[{"DNS", endpoint}].push_back(address);
        else
          open[endpoint].push_back(address);
      }
    }
    for (const auto& [endpoint, addresses] : open) {
      write_network(endpoint, addresses, "", "");
      ++rules_;
    }
    for (const auto& [key, addresses] : closed) {
      const bool dns = key.first == "DNS";
      const std::string what = counted(addresses.size(), "destination") +
                               (dns ? " for DNS beside the configured resolvers"
                                    : " of a kind to be careful with (" + key.first + ")");
      warn(what + " not allowed: the rule is commented out, " +
           net::to_string(key.second.protocol) +
           (key.second.port ? " port " + std::to_string(key.second.port) : "") + ", first " +
           addresses.front().to_string());
      comment("NOT ALLOWED: " + what + ".");
      comment(
          dns ? "DNS there is neither judged nor learned from; a resolver that is meant belongs "
                "into dns.servers."
              : "Such addresses reach the host itself, its neighbours or its credentials. Remove "
                "the # only if you know why.");
      write_network(key.second, addresses, key.first, "# ");
    }
  }

  void write_network(const Endpoint& endpoint, const std::vector<net::IpAddress>& addresses,
                     const std::string& kind, const std::string& prefix) {
    Seen seen;
    for (const auto& address : addresses)
      seen.merge(in_.addresses.at(address).endpoints.at(endpoint));
    comment(seen.to_text());
    const Shape shape{{endpoint.protocol}, {endpoint.port}};
    const bool nameless = std::ranges::all_of(
        addresses, [&](const auto& a) { return in_.addresses.at(a).known_as.empty(); });
    if (prefix.empty() && nameless)
      comment("No name was known for these. A rule for a name is better: addresses move.");
    rule_name("addresses " + shape_name(shape) + (kind.empty() ? "" : ", " + kind), "more", prefix);
    const std::string indent = "      " + prefix + "  ";
    body_ += indent + "addresses:\n";
    for (const auto& address : addresses) {
      const auto& learned = in_.addresses.at(address);
      body_ += indent + "  - \"" + address.to_string() + "\" # " +
               counted(learned.endpoints.at(endpoint).count, "denial");
      if (!learned.known_as.empty())
        body_ += "; name: " + first_of(to_vector(learned.known_as), kShownNames);
      if (!learned.asked_before.empty())
        body_ += "; asked just before by the same process: " +
                 first_of(to_vector(learned.asked_before), kShownNames);
      body_ += "\n";
    }
    if (endpoint.port != 0) body_ += indent + "ports: [" + std::to_string(endpoint.port) + "]\n";
    body_ += indent + "protocols: [" + net::to_string(endpoint.protocol) + "]\n";
  }

  void line(std::string& out, std::string text) const {
    if (text.size() > kMaxComment) text = text.substr(0, kMaxComment) + " ...";
    out += "# " + text + "\n";
  }

  [[nodiscard]] std::string commented_head() const {
    std::string out;
    line(out, "Learned by egressctl learn from " + in_.all.to_text() + ".");
    if (in_.allowed_already > 0)
      line(out,
           counted(in_.allowed_already, "denial") + " left out: the given policy allows them.");
    for (const auto& warning : warnings_) line(out, "WARNING: " + warning);
    for (const auto& [why, group] : in_.aside) {
      line(out, "No rule for " + counted(group.seen.count, "denial") + ": " +
                    audit::printable(why) + ".");
      for (const auto& [what, times] : group.examples.top(kShownExamples))
        line(out, "  " + audit::printable(what).substr(0, kMaxComment / 2) + " (" +
                      std::to_string(times) + ")");
      if (group.examples.size() > kShownExamples || group.examples.others() > 0)
        line(out, "  and others");
    }
    if (rules_ == 0) line(out, "There is nothing to make a rule of: this is no policy.");
    return out;
  }

  [[nodiscard]] std::string head() const {
    std::string out = commented_head();
    line(out, "Read every rule before it is in force: it says what was tried, not what is right.");
    if (!in_.resolvers.empty()) {
      std::vector<std::string> servers;
      for (const auto& address : in_.resolvers) servers.push_back(address.to_string());
      line(out, "Names were asked at " + first_of(servers, kShownNames) +
                    "; without dns.servers those of /etc/resolv.conf are asked.");
    }
    const auto* existing = in_.options.existing;
    const bool enforce = existing && existing->mode == policy::Mode::Enforce;
    out += "version: 1\n";
    if (!enforce) line(out, "Lets everything pass and records what it would deny. Then: enforce.");
    out += std::string("mode: ") + (enforce ? "enforce" : "audit") + "\n";
    out += "collections:\n  - name: \"" + in_.options.collection +
           "\"\n    priority: " + std::to_string(free_priority()) +
           "\n    action: allow\n    rules:\n";
    return out;
  }

  // One the given policy has not, so that the collection can be copied there.
  [[nodiscard]] std::uint32_t free_priority() const {
    std::uint32_t priority = 1000;
    const auto taken = [&] {
      return in_.options.existing &&
             std::ranges::any_of(in_.options.existing->collections,
                                 [&](const auto& c) { return c.priority == priority; });
    };
    while (taken()) ++priority;
    return priority;
  }

  const LearnInput& in_;
  std::map<std::pair<std::string, bool>, Pattern> patterns_;  // with allowPrivate?
  std::vector<std::string> warnings_;
  std::set<std::string> used_;
  std::string body_;
  std::size_t rules_ = 0;
};

}  // namespace

Learned write_policy(const LearnInput& input) { return Writer(input).run(); }

}  // namespace egressd::analysis
