#include "policy/reader.h"

#include <algorithm>
#include <charconv>
#include <iterator>
#include <numeric>
#include <tuple>
#include <unordered_set>

#include "policy/policy.h"
#include "policy/suggest.h"

namespace egressd::policy {
namespace {

// A file with more mistakes than this is not read by a person.
constexpr std::size_t kMaxDiagnostics = 10'000;

std::optional<long> number(std::string_view text) {
  long value = 0;
  const auto [end, ec] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (ec != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return value;
}

}  // namespace

std::string Diagnostic::to_string() const {
  std::string out = file;
  if (line > 0) out += ":" + std::to_string(line) + ":" + std::to_string(column);
  out += severity == Severity::Error ? ": error: " : ": warning: ";
  return out + message;
}

void Reader::add(Diagnostic::Severity severity, int line, int column, std::string message) {
  if (severity == Diagnostic::Severity::Error) failed_ = true;
  if (diagnostics_.size() >= kMaxDiagnostics) return;
  diagnostics_.push_back({severity, file_, line, column, std::move(message)});
}

void Reader::error(const YamlNode& at, std::string message) {
  add(Diagnostic::Severity::Error, at.line, at.column, std::move(message));
}

void Reader::warning(const YamlNode& at, std::string message) {
  add(Diagnostic::Severity::Warning, at.line, at.column, std::move(message));
}

void Reader::error(const YamlError& e) {
  add(Diagnostic::Severity::Error, e.line, e.column, e.message);
}

std::vector<Diagnostic> Reader::take() {
  std::vector<std::size_t> order(diagnostics_.size());
  std::iota(order.begin(), order.end(), 0u);
  std::ranges::sort(order, {}, [&](std::size_t i) {
    return std::tuple(diagnostics_[i].line, diagnostics_[i].column, i);
  });
  std::vector<Diagnostic> out;
  std::unordered_set<std::string> seen;
  for (const std::size_t i : order)
    if (seen.insert(diagnostics_[i].to_string()).second) out.push_back(std::move(diagnostics_[i]));
  diagnostics_.clear();
  return out;
}

std::string Reader::did_you_mean(std::string_view word, std::span<const std::string_view> known) {
  if (known.size() > comparisons_left_) return "";
  comparisons_left_ -= known.size();
  return policy::did_you_mean(word, known);
}

bool Reader::map(const YamlNode& node, std::string_view what,
                 std::initializer_list<std::string_view> keys) {
  if (node.kind != YamlNode::Kind::Map) {
    std::string known;
    for (const std::string_view key : keys) known += (known.empty() ? "" : ", ") + std::string(key);
    error(node, std::string(what) + " must be a map with the keys " + known + ", not " +
                    node.kind_name());
    return false;
  }
  // Maps of a few keys are many, and looked through quickly.
  constexpr std::size_t kFew = 16;
  std::unordered_set<std::string_view> seen;
  const auto is_repeated = [&](std::size_t i) {
    const std::string_view text = node.members[i].first->text;
    if (node.members.size() > kFew) return !seen.insert(text).second;
    return std::ranges::any_of(node.members.first(i), [&](const YamlNode::Member& earlier) {
      return earlier.first->kind == YamlNode::Kind::Scalar && earlier.first->text == text;
    });
  };
  for (std::size_t i = 0; i < node.members.size(); ++i) {
    const YamlNode* key = node.members[i].first;
    if (key->kind != YamlNode::Kind::Scalar) {
      error(*key, std::string("a key of ") + std::string(what) + " must be a word, not " +
                      key->kind_name());
      continue;
    }
    if (is_repeated(i)) {
      error(*key, "key " + quoted(key->text) + " is given twice in " + std::string(what));
      continue;
    }
    if (keys.size() == 0 || std::ranges::find(keys, key->text) != keys.end()) continue;
    if (key->text == "<<") {
      error(*key, "YAML merge keys (<<) are not supported; write the keys out");
      continue;
    }
    std::string hint = did_you_mean(key->text, std::span(keys.begin(), keys.size()));
    if (hint.empty()) {
      hint = "; it may have ";
      for (const std::string_view k : keys)
        hint += (k == *keys.begin() ? "" : ", ") + std::string(k);
    }
    error(*key, "unknown key " + quoted(key->text) + " in " + std::string(what) + hint);
  }
  return true;
}

const YamlNode* Reader::find(const YamlNode& map, std::string_view key) {
  for (const auto& [k, value] : map.members)
    if (k->kind == YamlNode::Kind::Scalar && k->text == key) return value;
  return nullptr;
}

std::optional<std::string_view> Reader::scalar(const YamlNode& node, std::string_view what) {
  if (node.kind == YamlNode::Kind::Scalar) return node.text;
  error(node, std::string(what) + " must be a single value, not " + node.kind_name());
  return std::nullopt;
}

std::optional<bool> Reader::boolean(const YamlNode& node, std::string_view what) {
  const auto text = scalar(node, what);
  if (!text) return std::nullopt;
  if (*text == "true") return true;
  if (*text == "false") return false;
  error(node, std::string(what) + " must be true or false, not " + quoted(*text));
  return std::nullopt;
}

std::span<const YamlNode* const> Reader::list(const YamlNode& node, std::string_view what) {
  switch (node.kind) {
    case YamlNode::Kind::Scalar:
      return node.items;
    case YamlNode::Kind::Sequence:
      if (node.items.empty())
        error(node, std::string(what) + " is an empty list; fill it or remove the key");
      return node.items;
    case YamlNode::Kind::Null:
      error(node, std::string(what) + " is empty; fill it or remove the key");
      return {};
    case YamlNode::Kind::Map:
      error(node, std::string(what) + " must be a value or a list, not a map");
      return {};
  }
  return {};
}

std::optional<net::PortRange> Reader::port_range(const YamlNode& node) {
  const auto text = scalar(node, "a port");
  if (!text) return std::nullopt;
  if (*text == "*") return net::PortRange{};
  const auto dash = text->find('-', 1);
  const std::string_view view = *text;
  const auto first = number(view.substr(0, dash));
  const auto last = dash == std::string::npos ? first : number(view.substr(dash + 1));
  if (!first || !last) {
    error(node, quoted(*text) +
                    " is not a port; write a number, a range like \"8000-8010\", or "
                    "\"*\" for all");
    return std::nullopt;
  }
  for (const long port : {*first, *last})
    if (port < 1 || port > 65535) {
      error(node, "port " + std::to_string(port) + " is out of range; ports are 1 to 65535, " +
                      "\"*\" means all");
      return std::nullopt;
    }
  if (*first > *last) {
    error(node, "port range " + quoted(*text) + " is reversed; write \"" + std::to_string(*last) +
                    "-" + std::to_string(*first) + "\"");
    return std::nullopt;
  }
  return net::PortRange{static_cast<std::uint16_t>(*first), static_cast<std::uint16_t>(*last)};
}

std::vector<net::PortRange> Reader::ports(const YamlNode& node) {
  std::vector<net::PortRange> out;
  for (const YamlNode* item : list(node, "'ports'"))
    if (const auto range = port_range(*item)) out.push_back(*range);
  if (out.size() < 2) return out;
  std::ranges::sort(out);
  // Neighbours and overlaps become one range, and with "*" the others say nothing. But a DNS port
  // that is written by itself says more than a range around it does.
  const auto alone = [](const net::PortRange& r) {
    return r.first == r.last && std::ranges::find(kDnsPorts, r.first) != kDnsPorts.end();
  };
  std::vector<net::PortRange> merged;
  std::ranges::copy_if(out, std::back_inserter(merged), alone);
  merged.erase(std::unique(merged.begin(), merged.end()), merged.end());
  const auto ranges = merged.size();
  for (const net::PortRange& range : out) {
    if (alone(range)) continue;
    if (merged.size() > ranges && range.first <= merged.back().last + 1)
      merged.back().last = std::max(merged.back().last, range.last);
    else
      merged.push_back(range);
  }
  std::ranges::sort(merged);
  return merged;
}

std::optional<net::Protocol> Reader::protocol(const YamlNode& node) {
  const auto text = scalar(node, "a protocol");
  if (!text) return std::nullopt;
  std::string word(*text);
  for (char& c : word)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  if (word == "tcp") return net::Protocol::Tcp;
  if (word == "udp") return net::Protocol::Udp;
  if (word == "icmp") return net::Protocol::Icmp;
  if (word == "icmpv6") return net::Protocol::Icmpv6;
  if (word == "sctp") return net::Protocol::Sctp;
  if (word == "any") return net::Protocol::Any;
  if (const auto n = number(word)) {
    if (*n >= 1 && *n <= 255) return static_cast<net::Protocol>(*n);
    error(node, "protocol number " + quoted(*text) + " is out of range; 1 to 255, or any");
    return std::nullopt;
  }
  constexpr std::string_view kNames[] = {"tcp", "udp", "icmp", "icmpv6", "sctp", "any"};
  error(node, "unknown protocol " + quoted(*text) + did_you_mean(word, kNames) +
                  "; write tcp, udp, icmp, sctp, any, or a number from 1 to 255");
  return std::nullopt;
}

}  // namespace egressd::policy
