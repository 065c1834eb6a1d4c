#include "policy/parser.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <fstream>
#include <map>
#include <set>
#include <unordered_set>

#include "base/result.h"
#include "policy/in_label_tree.h"
#include "policy/limits.h"
#include "policy/policy_checks.h"
#include "policy/reader.h"
#include "policy/suggest.h"

namespace egressd::policy {
namespace {

constexpr std::uint32_t kMinPriority = 100;
constexpr std::uint32_t kMaxPriority = 64'999;
constexpr std::uint32_t kTagPriority = 65'000;  // behind every collection of the file
constexpr std::string_view kTagCollection = "tags";
constexpr std::size_t kMaxNameBytes = 128;      // of rules and collections
constexpr std::size_t kMaxRules = 200'000;      // tags expanded
constexpr std::size_t kMaxTargets = 1'000'000;  // names and prefixes of all rules, expanded
constexpr std::array<std::string_view, 3> kCloudNames = {"public", "usgov", "china"};

bool has_ports(net::Protocol p) {
  return p == net::Protocol::Tcp || p == net::Protocol::Udp || p == net::Protocol::Sctp;
}

class PolicyReader {
 public:
  PolicyReader(const std::string& file, const TagCatalog& tags) : reader_(file), tags_(tags) {}

  std::expected<Parsed, std::vector<Diagnostic>> read(std::string_view text) {
    const auto tree = YamlTree::parse(text);
    if (!tree)
      reader_.error(tree.error());
    else
      read_root(tree->root());
    // Reading the whole of a large file is worth it only while each rule is still right.
    if (!reader_.failed()) check_overlaps(reader_, drafts_);
    if (!reader_.failed()) check_merged(reader_, drafts_);
    if (!reader_.failed()) {
      warn_never_matching(reader_, drafts_);
      warn_unreachable_resolve(reader_, drafts_, policy_.dns.resolve, resolve_nodes_);
    }
    const bool failed = reader_.failed();
    auto diagnostics = reader_.take();
    if (failed) return std::unexpected(std::move(diagnostics));
    Parsed parsed{std::move(policy_), std::move(diagnostics)};
    for (DraftCollection& draft : drafts_) {
      draft.head.rules.reserve(draft.rules.size());
      for (DraftRule& rule : draft.rules) draft.head.rules.push_back(std::move(rule.rule));
      parsed.policy.collections.push_back(std::move(draft.head));
    }
    return parsed;
  }

 private:
  void read_root(const YamlNode& root) {
    if (root.kind == YamlNode::Kind::Null) {
      reader_.error(YamlError{1, 1, "the file is empty; a policy begins with: version: 1"});
      return;
    }
    if (!reader_.map(root, "the policy",
                     {"version", "mode", "cloud", "tags", "parameters", "dns", "addressGroups",
                      "collections"}))
      return;
    read_version(root);
    if (const YamlNode* mode = Reader::find(root, "mode"))
      policy_.mode = read_mode(*mode).value_or(Mode::Enforce);
    else
      reader_.error(root, "no 'mode'; write mode: enforce, or mode: audit to try the policy out");
    if (const YamlNode* cloud = Reader::find(root, "cloud")) read_cloud(*cloud);
    if (const YamlNode* parameters = Reader::find(root, "parameters")) read_parameters(*parameters);
    if (const YamlNode* groups = Reader::find(root, "addressGroups")) read_groups(*groups);
    if (const YamlNode* dns = Reader::find(root, "dns")) read_dns(*dns);
    if (const YamlNode* list = Reader::find(root, "collections")) {
      for (const YamlNode* node : items(*list, "'collections'")) read_collection(*node);
    }
    std::ranges::sort(drafts_, {}, [](const DraftCollection& d) { return d.head.priority; });
    if (const YamlNode* tags = Reader::find(root, "tags")) read_tags(*tags);
    if (!Reader::find(root, "collections") && !Reader::find(root, "tags"))
      reader_.error(root,
                    "neither 'tags' nor 'collections': nothing would be allowed; write what is");
    for (const auto& [name, node] : parameter_nodes_)
      if (!used_parameters_.contains(name))
        reader_.warning(*node, "parameter " + quoted(name) + " is used by no tag of this file");
  }

  // A list that must not be given as a single value.
  std::span<const YamlNode* const> items(const YamlNode& node, std::string_view what) {
    if (node.kind == YamlNode::Kind::Scalar || node.kind == YamlNode::Kind::Map) {
      reader_.error(node, std::string(what) + " must be a list, each entry behind a '- '");
      return {};
    }
    return reader_.list(node, what);
  }

  void read_version(const YamlNode& root) {
    const YamlNode* node = Reader::find(root, "version");
    if (!node) {
      reader_.error(root, "no 'version'; begin the file with: version: 1");
      return;
    }
    const auto text = reader_.scalar(*node, "'version'");
    if (text && *text != "1")
      reader_.error(*node,
                    "version " + quoted(*text) + " is unknown; this program reads version 1");
  }

  std::optional<Mode> read_mode(const YamlNode& node) {
    const auto text = reader_.scalar(node, "'mode'");
    if (!text) return std::nullopt;
    if (*text == "audit") return Mode::Audit;
    if (*text == "enforce") return Mode::Enforce;
    constexpr std::string_view kModes[] = {"audit", "enforce"};
    reader_.error(node, "unknown mode " + quoted(*text) + reader_.did_you_mean(*text, kModes) +
                            "; write audit or enforce");
    return std::nullopt;
  }

  void read_cloud(const YamlNode& node) {
    const auto text = reader_.scalar(node, "'cloud'");
    if (!text) return;
    if (std::ranges::find(kCloudNames, *text) == kCloudNames.end())
      reader_.error(node, "unknown cloud " + quoted(*text) +
                              reader_.did_you_mean(*text, kCloudNames) +
                              "; write public, usgov or china");
    else
      cloud_ = *text;
  }

  void read_parameters(const YamlNode& node) {
    // Every placeholder of the catalog is a parameter, and nothing else is.
    std::set<std::string, std::less<>> known = {"location"};
    for (const Tag& tag : tags_.tags())
      for (const TagEntry& entry : tag.entries)
        for (const std::string& text : entry.opens())
          for (std::string& name : placeholders(text)) known.insert(std::move(name));
    if (node.kind != YamlNode::Kind::Map) {
      reader_.error(node, std::string("'parameters' must be a map, like region: eastus, not ") +
                              node.kind_name());
      return;
    }
    reader_.map(node, "'parameters'", {});  // repeated keys, keys that are no words
    for (const auto& [key, value] : node.members) {
      if (key->kind != YamlNode::Kind::Scalar) continue;
      if (!known.contains(key->text)) {
        const std::vector<std::string_view> names(known.begin(), known.end());
        reader_.error(*key, "no tag has a parameter " + quoted(key->text) +
                                reader_.did_you_mean(key->text, names));
        continue;
      }
      const std::string name = canonical_parameter(key->text);
      if (parameters_.contains(name) && key->text != name) {
        reader_.error(*key, "'location' and 'region' are the same parameter; keep one");
        continue;
      }
      std::vector<std::string>& values = parameters_[name];
      std::unordered_set<std::string> seen;
      parameter_nodes_.emplace(name, key);
      for (const YamlNode* item : reader_.list(*value, quoted(key->text))) {
        const auto text = reader_.scalar(*item, "the value of " + quoted(key->text));
        if (!text) continue;
        if (text->find_first_of(".*") != std::string::npos) {
          reader_.error(*item, "parameter " + quoted(key->text) + " is " + quoted(*text) +
                                   "; write the one label that replaces <" +
                                   std::string(key->text) + ">, without dots and wildcards");
          continue;
        }
        const auto label = canonical_fqdn(std::string(*text) + ".example");
        if (!label) {
          reader_.error(
              *item, "parameter " + quoted(key->text) + " must be a DNS label: " + label.error());
          continue;
        }
        // Unicode has more dots than one: what became two labels is refused as well.
        if (std::ranges::count(*label, '.') != 1) {
          reader_.error(*item, "parameter " + quoted(key->text) + " must be one DNS label");
          continue;
        }
        std::string canonical = label->substr(0, label->find('.'));
        if (!seen.insert(canonical).second) continue;
        if (values.size() == kMaxParameterValues) {
          reader_.error(*item, "parameter " + quoted(key->text) + " has more than " +
                                   std::to_string(kMaxParameterValues) +
                                   " values; write a pattern under 'fqdns' instead");
          break;
        }
        values.push_back(std::move(canonical));
      }
    }
  }

  void read_groups(const YamlNode& node) {
    if (node.kind != YamlNode::Kind::Map) {
      reader_.error(node, std::string("'addressGroups' must be a map, like corp: [10.0.0.0/8], "
                                      "not ") +
                              node.kind_name());
      return;
    }
    reader_.map(node, "'addressGroups'", {});
    for (const auto& [key, value] : node.members) {
      if (key->kind != YamlNode::Kind::Scalar) continue;
      auto [it, fresh] = groups_.try_emplace(std::string(key->text));
      if (!fresh) continue;
      if (group_names_.size() < 1000) group_names_.push_back(it->first);
      it->second = read_prefixes(*value, "address group " + quoted(key->text));
    }
  }

  std::vector<net::Prefix> read_prefixes(const YamlNode& node, const std::string& what) {
    std::vector<net::Prefix> out;
    for (const YamlNode* item : reader_.list(node, what)) {
      const auto text = reader_.scalar(*item, "an address");
      if (!text) continue;
      auto prefix = net::Prefix::parse(*text);
      if (prefix) {
        out.push_back(*prefix);
      } else if (text->find('/') == std::string::npos && FqdnPattern::parse(*text)) {
        reader_.error(*item, quoted(*text) + " is a host name; write it under 'fqdns'");
      } else if (text->size() > 80) {
        reader_.error(*item, quoted(*text) + " is not an IP address or CIDR block");
      } else {
        reader_.error(*item, prefix.error());
      }
    }
    return out;
  }

  void read_dns(const YamlNode& node) {
    if (!reader_.map(node, "'dns'",
                     {"mode", "servers", "resolve", "grace", "filter", "searchDomains", "log"}))
      return;
    DnsSettings& dns = policy_.dns;
    if (const YamlNode* mode = Reader::find(node, "mode"))
      read_one_of(*mode, "mode", "inline (the kernel learns from answers)", DnsMode::Inline,
                  "proxy (the agent does, and answers itself)", DnsMode::Proxy, dns.mode);
    if (const YamlNode* log = Reader::find(node, "log"))
      read_one_of(*log, "log", "denied (refused questions)", DnsLog::Denied, "all", DnsLog::All,
                  dns.log);
    if (const YamlNode* servers = Reader::find(node, "servers")) read_servers(*servers);
    if (const YamlNode* resolve = Reader::find(node, "resolve")) {
      std::unordered_set<std::string> seen;
      for (const YamlNode* item : reader_.list(*resolve, "'resolve'")) {
        const auto text = reader_.scalar(*item, "a name to resolve");
        if (!text) continue;
        auto name = canonical_fqdn(*text);
        if (!name) {
          reader_.error(*item, name.error());
        } else if (seen.insert(*name).second) {
          resolve_nodes_.push_back(item);
          dns.resolve.push_back(std::move(*name));
        }
      }
    }
    if (const YamlNode* grace = Reader::find(node, "grace")) read_grace(*grace);
    if (const YamlNode* filter = Reader::find(node, "filter")) read_filter(*filter);
    if (const YamlNode* search = Reader::find(node, "searchDomains")) read_search_domains(*search);
  }

  // A key with two values, each written like "name (what it means)".
  template <typename Value>
  void read_one_of(const YamlNode& node, const std::string& key, std::string_view first_text,
                   Value first, std::string_view second_text, Value second, Value& into) {
    const auto text = reader_.scalar(node, quoted(key));
    if (!text) return;
    const auto is = [&](std::string_view choice) {
      return *text == choice.substr(0, choice.find(' '));
    };
    if (is(first_text))
      into = first;
    else if (is(second_text))
      into = second;
    else
      reader_.error(node, key + " " + quoted(*text) + " is not one of " + std::string(first_text) +
                              " and " + std::string(second_text));
  }

  void read_servers(const YamlNode& node) {
    std::unordered_set<net::IpAddress> seen;
    for (const YamlNode* item : reader_.list(node, "'servers'")) {
      const auto text = reader_.scalar(*item, "a DNS server");
      if (!text) continue;
      const auto address = net::IpAddress::parse(*text);
      if (!address) {
        reader_.error(*item, quoted(*text) +
                                 " is not an IP address; DNS servers are written "
                                 "like 10.0.0.10, without port or name");
      } else if (seen.insert(*address).second) {
        if (seen.size() > kMaxDnsServers) {
          reader_.error(*item, "more than " + std::to_string(kMaxDnsServers) +
                                   " DNS servers; list those that this machine asks");
          return;
        }
        policy_.dns.servers.push_back(*address);
      }
    }
  }

  void read_search_domains(const YamlNode& node) {
    std::unordered_set<std::string> seen;
    for (const YamlNode* item : reader_.list(node, "'searchDomains'")) {
      const auto text = reader_.scalar(*item, "a search domain");
      if (!text) continue;
      auto name = canonical_fqdn(*text);
      if (!name) {
        reader_.error(*item, name.error());
        continue;
      }
      // Every name below may be asked, so whoever is asked must not be just anyone.
      const auto below = FqdnPattern::parse("*." + *name);
      if (!below) {
        reader_.error(*item, quoted(*text) +
                                 " cannot be a search domain: all names below it may be asked, and "
                                 "with them data sent to whoever registers one; " +
                                 below.error());
        continue;
      }
      if (const std::string platform = below->shared_platform(); !platform.empty())
        reader_.warning(*item, "all names below " + quoted(*text) +
                                   " may be asked, also those of the other customers of " +
                                   platform + "; name your own domain, if you can");
      if (!seen.insert(*name).second) continue;
      if (seen.size() > kMaxSearchDomains) {
        reader_.error(*item, "more than " + std::to_string(kMaxSearchDomains) +
                                 " search domains; list those of resolv.conf, here and in pods");
        return;
      }
      policy_.dns.search_domains.push_back(std::move(*name));
    }
  }

  void read_filter(const YamlNode& node) {
    const auto text = reader_.scalar(node, "'filter'");
    if (!text) return;
    if (*text == "off")
      policy_.dns.filter = DnsFilter::Off;
    else if (*text == "audit")
      policy_.dns.filter = DnsFilter::Audit;
    else if (*text == "allowlist")
      policy_.dns.filter = DnsFilter::Allowlist;
    else
      reader_.error(node,
                    "filter " + quoted(*text) +
                        " is not one of allowlist (names without a rule are not asked), audit "
                        "(they are recorded) and off");
  }

  void read_grace(const YamlNode& node) {
    const auto text = reader_.scalar(node, "'grace'");
    if (!text) return;
    std::string_view digits = *text;
    long long unit = 1;
    if (!digits.empty() && (digits.back() == 's' || digits.back() == 'm' || digits.back() == 'h')) {
      unit = digits.back() == 's' ? 1 : digits.back() == 'm' ? 60 : 3600;
      digits.remove_suffix(1);
    }
    long long value = -1;
    const auto [end, ec] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
    if (ec != std::errc{} || end != digits.data() + digits.size() || value < 0 || value > 86'400 ||
        value * unit > 86'400) {
      reader_.error(node, "grace " + quoted(*text) +
                              " is not a time from 0 to 24 hours; write seconds, or 30s, 5m, 1h");
      return;
    }
    policy_.dns.grace = std::chrono::seconds(value * unit);
  }

  // Name of a rule or collection. Empty after an error.
  std::string read_name(const YamlNode& node, std::string_view what) {
    const YamlNode* name = Reader::find(node, "name");
    if (!name) {
      reader_.error(node, std::string(what) + " has no 'name'");
      return "";
    }
    const auto text = reader_.scalar(*name, "'name'");
    if (!text) return "";
    if (text->empty() || text->size() > kMaxNameBytes) {
      reader_.error(*name, "a name has 1 to " + std::to_string(kMaxNameBytes) + " bytes");
      return "";
    }
    if (std::ranges::any_of(
            *text, [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; })) {
      reader_.error(*name, "name " + quoted(*text) + " holds a control character");
      return "";
    }
    return std::string(*text);
  }

  void read_collection(const YamlNode& node) {
    if (!reader_.map(node, "a collection", {"name", "priority", "action", "mode", "rules"})) return;
    DraftCollection draft;
    draft.head.name = read_name(node, "this collection");
    if (!draft.head.name.empty()) {
      const YamlNode& name = *Reader::find(node, "name");
      if (draft.head.name == kTagCollection)
        reader_.error(name, "the name 'tags' is taken by the collection made from 'tags:'");
      else if (!collection_names_.insert(draft.head.name).second)
        reader_.error(name, "a collection named " + quoted(draft.head.name) + " exists already");
    }
    read_priority(node, draft.head);
    if (const YamlNode* action = Reader::find(node, "action")) {
      const auto text = reader_.scalar(*action, "'action'");
      constexpr std::string_view kActions[] = {"allow", "deny"};
      if (text && *text == "deny")
        draft.head.action = Action::Deny;
      else if (text && *text != "allow")
        reader_.error(*action, "unknown action " + quoted(*text) +
                                   reader_.did_you_mean(*text, kActions) + "; write allow or deny");
    } else {
      reader_.error(node, "this collection has no 'action'; write action: allow or action: deny");
    }
    std::optional<Mode> mode;
    if (const YamlNode* n = Reader::find(node, "mode")) mode = read_mode(*n);
    if (const YamlNode* rules = Reader::find(node, "rules")) {
      std::unordered_set<std::string> names;
      const auto list = items(*rules, "'rules'");
      draft.rules.reserve(list.size());
      names.reserve(list.size());
      for (const YamlNode* item : list) read_rule(*item, mode, draft, names);
    } else {
      reader_.error(node, "this collection has no 'rules'");
    }
    drafts_.push_back(std::move(draft));
  }

  void read_priority(const YamlNode& node, Collection& collection) {
    const YamlNode* n = Reader::find(node, "priority");
    if (!n) {
      reader_.error(node, "this collection has no 'priority'; write a number from 100 to 64999");
      return;
    }
    const auto text = reader_.scalar(*n, "'priority'");
    if (!text) return;
    std::uint32_t value = 0;
    const auto [end, ec] = std::from_chars(text->data(), text->data() + text->size(), value);
    if (ec != std::errc{} || end != text->data() + text->size() || value < kMinPriority ||
        value > kMaxPriority) {
      reader_.error(*n, "priority " + quoted(*text) + " is not a number from " +
                            std::to_string(kMinPriority) + " to " + std::to_string(kMaxPriority));
      return;
    }
    const auto [other, fresh] = priorities_.emplace(value, collection.name);
    if (!fresh)
      reader_.error(*n, "priority " + std::string(*text) + " is used by collection " +
                            quoted(other->second) + " already; priorities are unique");
    collection.priority = value;
  }

  // Rule::mode as policy.h defines it.
  Mode effective_mode(Action action, std::optional<Mode> rule,
                      std::optional<Mode> collection) const {
    if (rule) return *rule;
    if (collection) return *collection;
    return action == Action::Deny ? policy_.mode : Mode::Enforce;
  }

  void read_rule(const YamlNode& node, std::optional<Mode> collection_mode, DraftCollection& draft,
                 std::unordered_set<std::string>& names) {
    if (!reader_.map(node, "a rule",
                     {"name", "fqdns", "addresses", "addressGroups", "tags", "ports", "protocols",
                      "mode", "allowPrivate"}))
      return;
    Rule rule;
    rule.name = read_name(node, "this rule");
    if (!rule.name.empty() && !names.insert(rule.name).second)
      reader_.error(*Reader::find(node, "name"),
                    "a rule named " + quoted(rule.name) + " exists already in this collection");
    std::optional<Mode> mode;
    if (const YamlNode* n = Reader::find(node, "mode")) mode = read_mode(*n);
    rule.mode = effective_mode(draft.head.action, mode, collection_mode);

    const YamlNode* fqdns = Reader::find(node, "fqdns");
    const YamlNode* addresses = Reader::find(node, "addresses");
    const YamlNode* groups = Reader::find(node, "addressGroups");
    const YamlNode* tags = Reader::find(node, "tags");
    const bool network = addresses || groups;
    if ((fqdns != nullptr) + network + (tags != nullptr) != 1) {
      reader_.error(node, fqdns || network || tags
                              ? "a rule is made of fqdns, of addresses (and addressGroups), or of "
                                "tags; make one rule of each"
                              : "this rule has neither 'fqdns' nor 'addresses', 'addressGroups' "
                                "or 'tags'");
      return;
    }
    if (const YamlNode* n = Reader::find(node, "allowPrivate")) {
      rule.allow_private = reader_.boolean(*n, "'allowPrivate'").value_or(false);
      if (network)
        reader_.error(*n,
                      "'allowPrivate' is for rules with names; a network rule says its "
                      "addresses itself");
    }
    if (tags) {
      read_tag_rule(node, *tags, rule, draft, names);
      return;
    }
    if (fqdns)
      read_fqdns(*fqdns, rule, draft.head.action);
    else
      read_targets(node, addresses, groups, rule, draft.head.action);
    read_protocols(node, fqdns != nullptr, rule);
    read_rule_ports(node, fqdns != nullptr, rule);
    check_entries(node, rule);
    if (fqdns && draft.head.action == Action::Allow) warn_dns_ports(node, rule);
    add_rule(draft, std::move(rule), node, false);
  }

  void check_entries(const YamlNode& node, const Rule& rule) {
    const std::size_t entries = rule.protocols.size() * rule.ports.size();
    if (entries <= kMaxEntries) return;
    const YamlNode* at = Reader::find(node, rule.ports.size() > 1 ? "ports" : "protocols");
    reader_.error(at ? *at : node,
                  "rule " + quoted(rule.name) + " has " + std::to_string(entries) +
                      " pairs of protocol and port range; the kernel has room for " +
                      std::to_string(kMaxEntries) + merge_hint(rule));
  }

  // A rule for names written for DNS does nothing there.
  void warn_dns_ports(const YamlNode& node, const Rule& rule) {
    if (effective_filter(policy_) == DnsFilter::Off) return;
    for (const std::uint16_t port : kDnsPorts)
      if (std::ranges::find(rule.ports, net::PortRange{port, port}) != rule.ports.end())
        reader_.warning(*Reader::find(node, "ports"),
                        "port " + std::to_string(port) +
                            " is DNS, which rules for names do not open; name the server under "
                            "'dns: servers', or write a network rule for exactly this port");
  }

  // What to write instead of too many entries.
  static std::string merge_hint(const Rule& rule) {
    if (rule.ports.size() == 1) return "; write protocols: [any]";
    std::string hint = "; write ranges that hold the ports, like \"" +
                       std::to_string(rule.ports.front().first) + "-" +
                       std::to_string(rule.ports.back().last) + "\"";
    if (rule.protocols.size() > 1) hint += ", or keep one of the protocols";
    return hint;
  }

  // Holds a pattern against the room the kernel has for those with `*` inside a label.
  void check_siblings(const FqdnPattern& pattern, const YamlNode& node) {
    if (pattern.kind() != FqdnPattern::Kind::InLabel) return;
    const std::string parent = in_label_.add(pattern.text(), 0, kMaxInLabelSiblings);
    if (parent.empty()) return;
    reader_.error(node, quoted(pattern.text()) + " is one too many: the kernel has room for " +
                            std::to_string(kMaxInLabelSiblings) +
                            " patterns with '*' inside the label in front of " + quoted(parent) +
                            "; write \"*." + parent + "\", fewer and wider patterns, or the names");
  }

  void read_fqdns(const YamlNode& node, Rule& rule, Action action) {
    std::unordered_set<std::string> seen;
    for (const YamlNode* item : reader_.list(node, "'fqdns'")) {
      const auto text = reader_.scalar(*item, "a host name");
      if (!text) continue;
      auto pattern = FqdnPattern::parse(*text);
      if (!pattern) {
        reader_.error(*item, pattern.error());
        continue;
      }
      if (!seen.insert(pattern->text()).second) {
        reader_.warning(*item, quoted(pattern->text()) + " is listed twice in this rule");
        continue;
      }
      if (action == Action::Allow) {
        if (const std::string platform = pattern->shared_platform(); !platform.empty())
          reader_.warning(*item, quoted(pattern->text()) + " allows every customer of " + platform +
                                     ": anyone's account is a way out for data; name the hosts you "
                                     "use, if you can");
      }
      if (pattern->kind() == FqdnPattern::Kind::Exact &&
          pattern->text().find('.') == std::string::npos)
        reader_.warning(*item, quoted(pattern->text()) +
                                   " has no dot; names are matched as DNS carries them, search "
                                   "domains included");
      check_siblings(*pattern, *item);
      rule.fqdns.push_back(std::move(*pattern));
    }
  }

  void read_targets(const YamlNode& node, const YamlNode* addresses, const YamlNode* groups,
                    Rule& rule, Action action) {
    if (addresses) rule.prefixes = read_prefixes(*addresses, "'addresses'");
    if (groups)
      for (const YamlNode* item : reader_.list(*groups, "'addressGroups'")) {
        const auto text = reader_.scalar(*item, "the name of an address group");
        if (!text) continue;
        const auto group = groups_.find(*text);
        if (group == groups_.end()) {
          reader_.error(*item,
                        "no address group is named " + quoted(*text) +
                            reader_.did_you_mean(*text, group_names_) +
                            (group_names_.empty() ? "; define it under 'addressGroups:'" : ""));
          continue;
        }
        if (!spend(group->second.size(), *item)) return;
        rule.prefixes.insert(rule.prefixes.end(), group->second.begin(), group->second.end());
      }
    std::ranges::sort(rule.prefixes);
    rule.prefixes.erase(std::unique(rule.prefixes.begin(), rule.prefixes.end()),
                        rule.prefixes.end());
    if (action == Action::Allow)
      for (const net::Prefix& prefix : rule.prefixes)
        if (prefix.length() == 0)
          reader_.warning(node, "this rule allows every " +
                                    std::string(prefix.address().is_v4() ? "IPv4" : "IPv6") +
                                    " address (" + prefix.to_string() + ")");
  }

  void read_protocols(const YamlNode& node, bool fqdn, Rule& rule) {
    const YamlNode* protocols = Reader::find(node, "protocols");
    if (!protocols) {
      if (fqdn)
        rule.protocols = {net::Protocol::Tcp};
      else
        reader_.error(node, "this network rule has no 'protocols'; write protocols: [tcp], or any");
      return;
    }
    const auto add = [&](net::Protocol p) {
      if (std::ranges::find(rule.protocols, p) == rule.protocols.end()) rule.protocols.push_back(p);
    };
    for (const YamlNode* item : reader_.list(*protocols, "'protocols'")) {
      const auto p = reader_.protocol(*item);
      if (!p) continue;
      if (!fqdn) {
        add(*p);
      } else if (*p == net::Protocol::Any) {
        // "any" of a name is what a name can be reached with: TCP and UDP.
        add(net::Protocol::Tcp);
        add(net::Protocol::Udp);
      } else if (*p == net::Protocol::Tcp || *p == net::Protocol::Udp) {
        add(*p);
      } else {
        reader_.error(*item, "a rule with fqdns is for tcp, udp or any (both), not " +
                                 net::to_string(*p) +
                                 "; other protocols need a network rule with 'addresses'");
      }
    }
    // Any of a network rule holds the others.
    if (std::ranges::find(rule.protocols, net::Protocol::Any) != rule.protocols.end())
      rule.protocols = {net::Protocol::Any};
  }

  void read_rule_ports(const YamlNode& node, bool fqdn, Rule& rule) {
    const YamlNode* ports = Reader::find(node, "ports");
    if (ports) {
      rule.ports = reader_.ports(*ports);
      const bool all = rule.ports.size() == 1 && rule.ports.front().is_all();
      if (!fqdn && !rule.ports.empty() && !all)
        for (const net::Protocol p : rule.protocols)
          if (!has_ports(p) && p != net::Protocol::Any) {
            reader_.error(*ports, "protocol " + net::to_string(p) +
                                      " has no ports; give it a rule of its own, or write "
                                      "ports: [\"*\"]");
            break;
          }
      return;
    }
    if (fqdn || std::ranges::any_of(rule.protocols, has_ports))
      reader_.error(node,
                    "this rule has no 'ports'; write ports: [443], a range like "
                    "\"8000-8010\", or \"*\" for all");
    else
      rule.ports = {net::PortRange{}};
  }

  void read_tag_rule(const YamlNode& node, const YamlNode& tags, const Rule& rule,
                     DraftCollection& draft, std::unordered_set<std::string>& names) {
    for (const std::string_view key : {"ports", "protocols"})
      if (const YamlNode* n = Reader::find(node, key))
        reader_.error(*n, "a rule made of tags has the tags' own ports and protocols; remove '" +
                              std::string(key) + "'");
    std::unordered_set<std::string> seen;
    for (const YamlNode* item : reader_.list(tags, "'tags'"))
      for (Rule& expanded : expand(*item, seen, draft.head.action)) {
        expanded.name = rule.name + "/" + expanded.name;
        expanded.mode = rule.mode;
        expanded.allow_private = rule.allow_private && !expanded.is_network();
        if (!rule.name.empty() && !names.insert(expanded.name).second)
          reader_.error(*item, "a rule named " + quoted(expanded.name) +
                                   " exists already in this collection; rename one");
        add_rule(draft, std::move(expanded), *item, true);
      }
  }

  void read_tags(const YamlNode& node) {
    DraftCollection draft;
    draft.head.name = kTagCollection;
    draft.head.priority = kTagPriority;
    std::unordered_set<std::string> seen;
    for (const YamlNode* item : reader_.list(node, "'tags'"))
      for (Rule& rule : expand(*item, seen, Action::Allow))
        add_rule(draft, std::move(rule), *item, true);
    drafts_.push_back(std::move(draft));
  }

  // Rules of one tag name; reports what stands in the way.
  std::vector<Rule> expand(const YamlNode& node, std::unordered_set<std::string>& seen,
                           Action action) {
    const auto name = reader_.scalar(node, "the name of a tag");
    if (!name) return {};
    const Tag* tag = tags_.find(*name);
    if (!tag) {
      std::vector<std::string_view> known;
      for (const Tag& t : tags_.tags()) known.push_back(t.name);
      std::string hint = reader_.did_you_mean(*name, known);
      if (hint.empty()) hint = "; `egressctl tags list` shows them";
      reader_.error(node, "unknown tag " + quoted(*name) + hint);
      return {};
    }
    if (!seen.emplace(*name).second) {
      reader_.warning(node, "tag " + quoted(*name) + " is listed twice");
      return {};
    }
    for (const TagEntry& entry : tag->entries)
      for (const std::string& text : entry.opens())
        for (std::string& parameter : placeholders(text))
          used_parameters_.insert(std::move(parameter));
    if (over_limit_) return {};
    const auto [known, fresh] = expansions_.try_emplace(tag);
    TagExpansion& expansion = known->second;
    if (fresh) expansion = expand_tag(*tag, cloud_, parameters_);
    for (const auto& [parameter, destination] : expansion.missing) {
      if (parameter_nodes_.contains(parameter)) continue;  // given, but wrong: reported there
      reader_.error(node, "tag " + tag->name + " needs the parameter '" + parameter + "' for " +
                              destination + "; add under 'parameters:' the line: " + parameter +
                              ": VALUE");
    }
    if (expansion.too_large) {
      reader_.error(node, "tag " + tag->name + " expands to more than " +
                              std::to_string(kMaxTagRules) +
                              " rules with these parameters; give fewer values");
      return {};
    }
    if (expansion.rules.empty() && expansion.missing.empty()) {
      std::set<std::string> clouds;
      for (const TagEntry& entry : tag->entries) clouds.insert(entry.cloud);
      std::string list;
      for (const std::string& c : clouds) list += (list.empty() ? "" : ", ") + c;
      reader_.error(node, "tag " + tag->name + " has no destinations in cloud '" + cloud_ +
                              "', only in: " + list);
    }
    if (action == Action::Allow) warn_exfiltration(node, *tag);
    return expansion.rules;
  }

  void warn_exfiltration(const YamlNode& node, const Tag& tag) {
    std::string list;
    std::size_t count = 0;
    for (const TagEntry& entry : tag.entries)
      if (entry.exfiltration_risk && (entry.cloud == "all" || entry.cloud == cloud_) &&
          ++count <= 3)
        list += (list.empty() ? "" : ", ") + entry.destination;
    if (count == 0) return;
    if (count > 3) list += " and " + std::to_string(count - 3) + " more";
    reader_.warning(node, "tag " + tag.name + " allows " + list +
                              ": anyone's account there is a way out for data");
  }

  // Counts names and prefixes of all rules against the limit.
  bool spend(std::size_t targets, const YamlNode& node) {
    targets_ += targets;
    if (targets_ <= kMaxTargets && rules_ <= kMaxRules) return true;
    if (!over_limit_)
      reader_.error(node, "the policy has more than " + std::to_string(kMaxRules) + " rules or " +
                              std::to_string(kMaxTargets) +
                              " names and addresses once groups and tags are expanded");
    over_limit_ = true;
    return false;
  }

  void add_rule(DraftCollection& draft, Rule rule, const YamlNode& node, bool from_tag) {
    ++rules_;
    if (!spend(rule.fqdns.size() + rule.prefixes.size(), node)) return;
    if (from_tag)
      for (const FqdnPattern& pattern : rule.fqdns) check_siblings(pattern, node);
    draft.rules.push_back({std::move(rule), &node, from_tag});
  }

  Reader reader_;
  const TagCatalog& tags_;
  Policy policy_;
  std::string cloud_ = "public";
  TagParameters parameters_;
  std::map<std::string, const YamlNode*> parameter_nodes_;
  std::set<std::string> used_parameters_;
  std::map<std::string, std::vector<net::Prefix>, std::less<>> groups_;
  std::vector<std::string_view> group_names_;   // for hints
  std::vector<const YamlNode*> resolve_nodes_;  // parallel to policy_.dns.resolve
  std::unordered_set<std::string> collection_names_;
  std::map<std::uint32_t, std::string> priorities_;
  std::vector<DraftCollection> drafts_;
  InLabelTree in_label_;                           // of all rules
  std::map<const Tag*, TagExpansion> expansions_;  // of tags in use
  std::size_t rules_ = 0;
  std::size_t targets_ = 0;
  bool over_limit_ = false;
};

std::vector<Diagnostic> file_error(const std::string& path, std::string message) {
  return {Diagnostic{Diagnostic::Severity::Error, path, 0, 0, std::move(message)}};
}

}  // namespace

std::expected<Parsed, std::vector<Diagnostic>> parse_policy(std::string_view text,
                                                            const std::string& file,
                                                            const TagCatalog& tags) {
  return PolicyReader(file, tags).read(text);
}

std::expected<std::string, std::vector<Diagnostic>> read_policy_file(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) return std::unexpected(file_error(path, Error::from_errno("cannot open").message));
  std::string text;
  // Room for what is there, which is far from the limit mostly; of a pipe nobody knows.
  for (std::size_t chunk = 64 << 10; in && text.size() <= kMaxPolicyBytes; chunk = text.size()) {
    const std::size_t before = text.size();
    text.resize(std::min(before + chunk, kMaxPolicyBytes + 1));
    in.read(text.data() + before, static_cast<std::streamsize>(text.size() - before));
    if (in.bad())
      return std::unexpected(file_error(path, Error::from_errno("cannot read").message));
    text.resize(before + static_cast<std::size_t>(in.gcount()));
  }
  text.shrink_to_fit();
  return text;
}

std::expected<Parsed, std::vector<Diagnostic>> load_policy(const std::string& path,
                                                           const TagCatalog& tags) {
  auto text = read_policy_file(path);
  if (!text) return std::unexpected(std::move(text.error()));
  return parse_policy(*text, path, tags);
}

}  // namespace egressd::policy
