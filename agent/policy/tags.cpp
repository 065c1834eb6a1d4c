#include "policy/tags.h"

#include <algorithm>
#include <array>
#include <unordered_map>
#include <unordered_set>

#include "policy/builtin_tags.h"
#include "policy/reader.h"
#include "policy/suggest.h"

namespace egressd::policy {
namespace {

constexpr std::array<std::string_view, 4> kClouds = {"all", "china", "public", "usgov"};

// Calls f(literal, "") and f("", placeholder) for the pieces of a text, in order.
template <typename F>
void pieces(std::string_view text, F f) {
  while (!text.empty()) {
    const auto open = text.find('<');
    const auto close = open == std::string_view::npos ? open : text.find('>', open);
    if (close == std::string_view::npos) {
      f(text, std::string_view{});
      return;
    }
    if (open > 0) f(text.substr(0, open), std::string_view{});
    f(std::string_view{}, text.substr(open + 1, close - open - 1));
    text.remove_prefix(close + 1);
  }
}

// Every way to fill the placeholders of the texts, all at once: a value stands for the same
// placeholder in all of them. `missing` gets the parameters without a value.
using Values = std::map<std::string, std::string>;

std::string fill(std::string_view text, const Values& values) {
  std::string out;
  pieces(text, [&](std::string_view literal, std::string_view name) {
    out += name.empty() ? std::string(literal) : values.at(canonical_parameter(name));
  });
  return out;
}

std::string ports_and_protocols(const Rule& rule) {
  std::string out;
  for (const net::PortRange& port : rule.ports) out += (out.empty() ? "" : ",") + port.to_string();
  std::string protocols;
  for (const net::Protocol p : rule.protocols)
    protocols += (protocols.empty() ? "" : "+") + net::to_string(p);
  return out + "/" + protocols;
}

// The destinations with dummy values in the placeholders must parse, now and not when a user
// first names the tag.
void check_destination(Reader& reader, const YamlNode& node, const std::string& text, bool apex,
                       bool* network) {
  if (text.find("<>") != std::string::npos) {
    reader.error(node, quoted(text) + " has a placeholder without a name");
    return;
  }
  Values dummy;
  for (const std::string& name : placeholders(text)) dummy[name] = "x";
  const std::string filled = fill(text, dummy);
  if (const auto prefix = net::Prefix::parse(filled)) {
    if (apex) reader.error(node, "'apex' has no meaning for the address " + quoted(text));
    *network = true;
    return;
  }
  const auto pattern = FqdnPattern::parse(filled);
  if (!pattern)
    reader.error(node, pattern.error());
  else if (apex && pattern->kind() != FqdnPattern::Kind::Exact)
    reader.error(node, "'apex' is for plain names; " + quoted(text) + " has a wildcard");
  else if (apex && !FqdnPattern::parse("*." + filled))
    reader.error(node, "'apex' would open all of " + quoted(text));
}

std::optional<TagEntry> read_entry(Reader& reader, const YamlNode& node) {
  if (!reader.map(node, "an entry",
                  {"cloud", "destination", "apex", "also", "ports", "protocols", "purpose",
                   "exfiltration", "documented"}))
    return std::nullopt;
  TagEntry entry;
  entry.cloud = "public";
  if (const YamlNode* n = Reader::find(node, "cloud"))
    if (const auto text = reader.scalar(*n, "'cloud'")) {
      entry.cloud = *text;
      if (std::ranges::find(kClouds, *text) == kClouds.end())
        reader.error(*n, "unknown cloud " + quoted(*text) + did_you_mean(*text, kClouds) +
                             "; write public, usgov, china or all");
    }
  if (const YamlNode* n = Reader::find(node, "apex"))
    entry.include_apex = reader.boolean(*n, "'apex'").value_or(false);
  if (const YamlNode* n = Reader::find(node, "exfiltration"))
    entry.exfiltration_risk = reader.boolean(*n, "'exfiltration'").value_or(false);
  if (const YamlNode* n = Reader::find(node, "documented"))
    entry.documented = reader.boolean(*n, "'documented'").value_or(true);
  bool network = false;
  if (const YamlNode* n = Reader::find(node, "destination")) {
    if (const auto text = reader.scalar(*n, "'destination'")) {
      entry.destination = *text;
      check_destination(reader, *n, std::string(*text), entry.include_apex, &network);
    }
  } else {
    reader.error(node, "this entry has no 'destination'");
  }
  if (const YamlNode* n = Reader::find(node, "also"))
    for (const YamlNode* item : reader.list(*n, "'also'"))
      if (const auto text = reader.scalar(*item, "an entry of 'also'")) {
        bool also_network = false;
        check_destination(reader, *item, std::string(*text), false, &also_network);
        if (also_network != network)
          reader.error(*item, "one entry holds either names or addresses");
        entry.also.emplace_back(*text);
      }
  if (const YamlNode* n = Reader::find(node, "ports"))
    entry.ports = reader.ports(*n);
  else
    reader.error(node, "this entry has no 'ports'");
  if (const YamlNode* n = Reader::find(node, "protocols")) {
    for (const YamlNode* item : reader.list(*n, "'protocols'"))
      if (const auto p = reader.protocol(*item)) {
        if (*p != net::Protocol::Tcp && *p != net::Protocol::Udp && *p != net::Protocol::Any)
          reader.error(*item, "a tag entry's protocol is tcp, udp or any");
        if (std::ranges::find(entry.protocols, *p) == entry.protocols.end())
          entry.protocols.push_back(*p);
      }
  } else {
    reader.error(node, "this entry has no 'protocols'");
  }
  if (const YamlNode* n = Reader::find(node, "purpose"))
    if (const auto text = reader.scalar(*n, "'purpose'")) entry.purpose = *text;
  return entry;
}

bool is_iso_date(std::string_view text) {
  if (text.size() != 10 || text[4] != '-' || text[7] != '-') return false;
  for (std::size_t i = 0; i < text.size(); ++i)
    if (i != 4 && i != 7 && (text[i] < '0' || text[i] > '9')) return false;
  return true;
}

bool is_tag_name(std::string_view name) {
  return !name.empty() && name.size() <= 64 && std::ranges::all_of(name, [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-';
  });
}

Tag read_tag(Reader& reader, const YamlNode& node) {
  Tag tag;
  if (!reader.map(node, "a tag", {"name", "title", "source", "date", "notes", "entries"}))
    return tag;
  const auto text = [&](std::string_view key, std::string& out) {
    const YamlNode* n = Reader::find(node, key);
    if (!n) {
      reader.error(node, "this tag has no '" + std::string(key) + "'");
      return n;
    }
    const auto value = reader.scalar(*n, "'" + std::string(key) + "'");
    if (!value) return static_cast<const YamlNode*>(nullptr);
    out = *value;
    return n;
  };
  if (const YamlNode* n = text("name", tag.name); n && !is_tag_name(tag.name))
    reader.error(*n, quoted(tag.name) + " is no tag name; use letters, digits and '-', at most 64");
  text("title", tag.title);
  text("source", tag.source);
  if (const YamlNode* n = text("date", tag.date); n && !is_iso_date(tag.date))
    reader.error(*n, quoted(tag.date) + " is no date; write it like 2026-03-19");
  if (const YamlNode* notes = Reader::find(node, "notes"))
    for (const YamlNode* item : reader.list(*notes, "'notes'"))
      if (const auto note = reader.scalar(*item, "a note")) tag.notes.emplace_back(*note);
  if (const YamlNode* entries = Reader::find(node, "entries")) {
    for (const YamlNode* item : reader.list(*entries, "'entries'"))
      if (auto entry = read_entry(reader, *item)) tag.entries.push_back(std::move(*entry));
  } else {
    reader.error(node, "this tag has no 'entries'");
  }
  return tag;
}

}  // namespace

std::vector<std::string> TagEntry::opens() const {
  std::vector<std::string> out = {destination};
  if (include_apex) out.push_back("*." + destination);
  out.insert(out.end(), also.begin(), also.end());
  return out;
}

std::string canonical_parameter(std::string_view name) {
  return name == "location" ? "region" : std::string(name);
}

std::vector<std::string> placeholders(std::string_view text) {
  std::vector<std::string> out;
  pieces(text, [&](std::string_view, std::string_view name) {
    if (name.empty()) return;
    std::string canonical = canonical_parameter(name);
    if (std::ranges::find(out, canonical) == out.end()) out.push_back(std::move(canonical));
  });
  return out;
}

TagExpansion expand_tag(const Tag& tag, std::string_view cloud, const TagParameters& parameters) {
  TagExpansion out;
  std::unordered_map<std::string, int> names;
  for (const TagEntry& entry : tag.entries) {
    if (entry.cloud != "all" && entry.cloud != cloud) continue;
    const std::vector<std::string> texts = entry.opens();
    // All ways to fill the entry's placeholders; a value stands for its placeholder everywhere.
    std::vector<Values> fillings(1);
    bool complete = true;
    for (const std::string& text : texts)
      for (const std::string& name : placeholders(text)) {
        if (fillings.empty() || fillings.front().contains(name)) continue;
        const auto values = parameters.find(name);
        if (values == parameters.end() || values->second.empty()) {
          complete = false;
          if (std::ranges::find(out.missing, name, &std::pair<std::string, std::string>::first) ==
              out.missing.end())
            out.missing.emplace_back(name, text);
          continue;
        }
        std::vector<Values> next;
        for (const Values& filling : fillings)
          for (const std::string& value : values->second) {
            if (next.size() >= kMaxTagRules) {
              out.too_large = true;
              return out;
            }
            next.push_back(filling);
            next.back()[name] = value;
          }
        fillings = std::move(next);
      }
    if (!complete) continue;
    for (const Values& values : fillings) {
      if (out.rules.size() >= kMaxTagRules) {
        out.too_large = true;
        return out;
      }
      Rule rule;
      rule.tag = tag.name;
      rule.ports = entry.ports;
      for (const std::string& text : texts) {
        const std::string filled = fill(text, values);
        if (const auto prefix = net::Prefix::parse(filled))
          rule.prefixes.push_back(*prefix);
        else if (auto pattern = FqdnPattern::parse(filled))
          rule.fqdns.push_back(std::move(*pattern));
        // A destination that is neither cannot pass TagCatalog::parse(); a parameter value that
        // spoils it (a label too long) opens nothing.
      }
      if (rule.prefixes.empty() && rule.fqdns.empty()) continue;
      if (rule.is_network() ||
          std::ranges::find(entry.protocols, net::Protocol::Any) == entry.protocols.end())
        rule.protocols = entry.protocols;
      else
        rule.protocols = {net::Protocol::Tcp, net::Protocol::Udp};
      rule.name = tag.name + ":" + fill(entry.destination, values);
      if (names[rule.name]++ > 0) {
        rule.name += ":" + ports_and_protocols(rule);
        if (const int n = names[rule.name]++; n > 0) rule.name += "#" + std::to_string(n + 1);
      }
      out.rules.push_back(std::move(rule));
    }
  }
  return out;
}

const TagCatalog& TagCatalog::builtin() {
  // The text is ours and the unit tests parse it: an error here cannot reach a user, and an empty
  // catalog would only make every tag unknown.
  static const TagCatalog catalog = parse(kBuiltinTags, "azure.yaml").value_or(TagCatalog{});
  return catalog;
}

std::expected<TagCatalog, std::string> TagCatalog::parse(std::string_view text,
                                                         const std::string& file) {
  Reader reader(file);
  TagCatalog catalog;
  const auto tree = YamlTree::parse(text);
  if (!tree) {
    reader.error(tree.error());
  } else if (reader.map(tree->root(), "a tag file", {"version", "tags"})) {
    const YamlNode& root = tree->root();
    const YamlNode* version = Reader::find(root, "version");
    if (!version)
      reader.error(root, "no 'version'; begin the file with: version: 1");
    else if (const auto v = reader.scalar(*version, "'version'"); v && *v != "1")
      reader.error(*version, "version " + quoted(*v) + " is unknown; this program reads version 1");
    std::unordered_set<std::string> names;
    if (const YamlNode* tags = Reader::find(root, "tags")) {
      for (const YamlNode* node : reader.list(*tags, "'tags'")) {
        Tag tag = read_tag(reader, *node);
        if (!tag.name.empty() && !names.insert(tag.name).second)
          reader.error(*node, "tag " + quoted(tag.name) + " is defined twice");
        catalog.tags_.push_back(std::move(tag));
      }
    } else {
      reader.error(root, "no 'tags'");
    }
  }
  if (!reader.failed()) return catalog;
  std::string message;
  for (const Diagnostic& d : reader.take())
    message += (message.empty() ? "" : "\n") + d.to_string();
  return std::unexpected(std::move(message));
}

const Tag* TagCatalog::find(std::string_view name) const {
  const auto it = std::ranges::find(tags_, name, &Tag::name);
  return it == tags_.end() ? nullptr : &*it;
}

}  // namespace egressd::policy
