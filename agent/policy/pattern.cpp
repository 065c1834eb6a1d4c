#include "policy/pattern.h"

#include <algorithm>
#include <array>
#include <vector>

#include "net/prefix.h"
#include "policy/glob.h"
#include "policy/idna.h"
#include "policy/public_suffix.h"
#include "policy/suggest.h"

namespace egressd::policy {
namespace {

constexpr std::size_t kMaxLabel = 63;
constexpr std::size_t kMaxName = 253;
constexpr std::size_t kMaxInput = 4096;  // Unicode input may be longer than what it becomes

// Top-level labels no registry sells: reserved (RFC 6761, RFC 6762, ICANN's .internal) or never
// to be delegated. A wildcard over one stays inside the site.
constexpr std::array<std::string_view, 11> kPrivateTopLevel = {
    "corp", "example", "home",      "internal", "intranet", "invalid",
    "lan",  "local",   "localhost", "private",  "test"};

using Labels = std::vector<std::string_view>;

Labels split(std::string_view name) {
  Labels labels;
  for (;;) {
    const auto dot = name.find('.');
    labels.push_back(name.substr(0, dot));
    if (dot == std::string_view::npos) return labels;
    name.remove_prefix(dot + 1);
  }
}

bool is_ascii(std::string_view text) {
  return std::ranges::all_of(text, [](char c) { return static_cast<unsigned char>(c) < 0x80; });
}

bool all_digits(std::string_view text) {
  return !text.empty() && std::ranges::all_of(text, [](char c) { return c >= '0' && c <= '9'; });
}

std::string lowered(std::string_view text) {
  std::string out(text);
  for (char& c : out)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  return out;
}

// What people write where a name belongs, each with what to write instead; "" if it is none.
std::string mistaken_for_name(std::string_view text) {
  if (text.empty()) return "empty host name; write a name like ml.azure.com";
  if (text.size() > kMaxInput)
    return quoted(text) + " is longer than a host name can be (253 bytes)";
  if (const auto open = text.find('<'); open != std::string_view::npos) {
    const auto close = text.find('>', open);
    return quoted(text) + " has an unfilled placeholder " +
           quoted(text.substr(open, close == std::string_view::npos ? close : close + 1 - open)) +
           "; write the value itself (placeholders are filled in only inside tags)";
  }
  if (const auto scheme = text.find("://"); scheme != std::string_view::npos) {
    const std::string_view rest = text.substr(scheme + 3);
    return quoted(text) + " is a URL; write the host name only: " +
           quoted(rest.substr(0, rest.find_first_of("/:?#"))) + " (and its port under 'ports')";
  }
  if (net::Prefix::parse(text)) return quoted(text) + " is an address; write it under 'addresses'";
  const auto slash = text.find('/');
  if (slash != std::string_view::npos) {
    if (net::IpAddress::parse(text.substr(0, slash)))
      return quoted(text) + " looks like a CIDR block; write it under 'addresses'";
    return quoted(text) + " has a path; rules know hosts only: write " +
           quoted(text.substr(0, slash));
  }
  if (const auto colon = text.rfind(':'); colon != std::string_view::npos) {
    if (all_digits(text.substr(colon + 1)))
      return quoted(text) + " holds a port; write " + quoted(text.substr(0, colon)) + " and put " +
             std::string(text.substr(colon + 1, 8)) + " under 'ports'";
    return quoted(text) + " holds a ':', which no host name does";
  }
  if (const auto at = text.find('@'); at != std::string_view::npos)
    return quoted(text) + " holds an '@'; write the host name only: " + quoted(text.substr(at + 1));
  const auto space = text.find_first_of(" \t\r\n");
  if (space != std::string_view::npos)
    return quoted(text) + " holds white space; write one host name per list entry";
  return "";
}

// One label without wildcard, lower case ASCII. "" if it is good.
std::string label_problem(std::string_view label, std::string_view name) {
  if (label.empty())
    return quoted(name) + " has an empty label (two dots in a row, or a dot in front)";
  for (const char c : label)
    if (!((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '_'))
      return quoted(name) + " holds " + quoted(std::string_view(&c, 1)) +
             "; host names are made of letters, digits, '-' and '_'";
  if (label.size() > kMaxLabel)
    return "label " + quoted(label) + " has " + std::to_string(label.size()) +
           " bytes; DNS allows 63 between two dots";
  return "";
}

std::string edge_problem(std::string_view label, std::string_view name) {
  if (label.front() == '-' || label.back() == '-')
    return "label " + quoted(label) + " of " + quoted(name) + " begins or ends with '-'";
  return "";
}

std::string too_long(std::string_view name, std::size_t size) {
  return quoted(name) + " has " + std::to_string(size) + " bytes; DNS names have at most 253";
}

std::string numeric_end(std::string_view name) {
  return quoted(name) +
         " ends in a number, so it is no host name; if an address is meant, "
         "write it completely under 'addresses'";
}

// `text` has passed mistaken_for_name() and holds no '*'.
std::expected<std::string, std::string> canonical_without_wildcard(std::string_view text) {
  std::string name;
  if (is_ascii(text)) {
    name = lowered(text);
  } else {
    auto converted = to_a_labels(text);
    if (!converted)
      return std::unexpected(quoted(text) +
                             " is not a valid internationalized name: " + converted.error());
    name = lowered(*converted);
  }
  if (name.ends_with('.')) name.pop_back();
  if (name.empty()) return std::unexpected(quoted(text) + " is the DNS root; write a host name");
  const Labels labels = split(name);
  for (const std::string_view label : labels) {
    if (auto problem = label_problem(label, text); !problem.empty())
      return std::unexpected(std::move(problem));
    if (auto problem = edge_problem(label, text); !problem.empty())
      return std::unexpected(std::move(problem));
  }
  if (name.size() > kMaxName) return std::unexpected(too_long(text, name.size()));
  if (all_digits(labels.back())) return std::unexpected(numeric_end(text));
  return name;
}

// `name` is strictly below the domain of the pattern text "*.domain".
bool below(std::string_view name, std::string_view subdomains) {
  const std::string_view dotted = subdomains.substr(1);
  return name.size() > dotted.size() && name.ends_with(dotted);
}

// The same, for the label lists of an in-label pattern and of "*.domain".
template <typename LabelTest>
bool suffix_labels(const Labels& in_label, const Labels& subdomains, LabelTest test) {
  const std::size_t domain = subdomains.size() - 1;
  if (in_label.size() <= domain) return false;
  for (std::size_t i = 1; i <= domain; ++i)
    if (!test(in_label[in_label.size() - i], subdomains[subdomains.size() - i])) return false;
  return true;
}

}  // namespace

std::expected<std::string, std::string> canonical_fqdn(std::string_view text) {
  if (auto problem = mistaken_for_name(text); !problem.empty())
    return std::unexpected(std::move(problem));
  if (text.find('*') != std::string_view::npos)
    return std::unexpected(quoted(text) + " is a pattern; write one complete host name");
  return canonical_without_wildcard(text);
}

std::expected<FqdnPattern, std::string> FqdnPattern::parse(std::string_view text) {
  if (auto problem = mistaken_for_name(text); !problem.empty())
    return std::unexpected(std::move(problem));
  if (text.find('*') == std::string_view::npos) {
    auto name = canonical_without_wildcard(text);
    if (!name) return std::unexpected(std::move(name.error()));
    return FqdnPattern(Kind::Exact, std::move(*name));
  }
  if (text == "*" || text == "*." || text == "*.*")
    return std::unexpected(quoted(text) +
                           " would allow every name; list the domains, like \"*.contoso.com\"");

  if (text.starts_with("*.") && text.find('*', 1) == std::string_view::npos) {
    auto domain = canonical_without_wildcard(text.substr(2));
    if (!domain) return std::unexpected(std::move(domain.error()));
    const bool top = domain->find('.') == std::string::npos;
    const bool registry =
        top ? !std::ranges::binary_search(kPrivateTopLevel, std::string_view(*domain))
            : public_suffix_labels(*domain) == split(*domain).size();
    if (registry)
      return std::unexpected(quoted(text) + " covers everything anyone registers under ." +
                             *domain + "; name the domain, like \"*.contoso." + *domain + "\"");
    // One label of one byte must fit in front.
    if (domain->size() + 2 > kMaxName) return std::unexpected(too_long(text, domain->size() + 2));
    return FqdnPattern(Kind::Subdomains, "*." + *domain);
  }

  std::string_view body = text;
  if (body.ends_with('.')) body.remove_suffix(1);
  const Labels labels = split(body);
  std::string canonical;
  std::size_t last_star = 0;  // index of the last label with a wildcard
  for (std::size_t i = 0; i < labels.size(); ++i) {
    std::string label = lowered(labels[i]);
    if (label == "*") {
      if (i == 0)
        return std::unexpected(quoted(text) +
                               " has a whole-label '*' and another '*'; write one of them only");
      return std::unexpected(quoted(text) +
                             " has '*' as a whole label behind the first; it may "
                             "stand only in front, like \"*.contoso.com\"");
    }
    if (const auto star = label.find('*'); star != std::string::npos) {
      if (label.find('*', star + 1) != std::string::npos)
        return std::unexpected("label " + quoted(label) + " of " + quoted(text) +
                               " has more than one '*'; one per label is allowed");
      if (!is_ascii(label))
        return std::unexpected("label " + quoted(label) + " of " + quoted(text) +
                               " mixes '*' with letters beyond ASCII: it has no A-label form; "
                               "write the names one by one");
      const std::string literal = label.substr(0, star) + label.substr(star + 1);
      if (auto problem = label_problem(literal, text); !problem.empty())
        return std::unexpected(std::move(problem));
      if (label.front() == '-' || label.back() == '-')
        return std::unexpected(edge_problem(label, text));
      // A `*` that has no room would be an exact name in disguise.
      if (literal.size() >= kMaxLabel)
        return std::unexpected("label " + quoted(label) +
                               " leaves no room for '*': DNS allows 63 bytes between two dots");
      last_star = i;
    } else if (!is_ascii(label)) {
      auto converted = to_a_labels(label);
      if (!converted)
        return std::unexpected(quoted(text) +
                               " is not a valid internationalized name: " + converted.error());
      label = lowered(*converted);
    }
    if (label.find('*') == std::string::npos) {
      if (auto problem = label_problem(label, text); !problem.empty())
        return std::unexpected(std::move(problem));
      if (auto problem = edge_problem(label, text); !problem.empty())
        return std::unexpected(std::move(problem));
    }
    if (i > 0) canonical += '.';
    canonical += label;
  }
  // Each `*` counts as the byte it must have room for.
  if (canonical.size() > kMaxName) return std::unexpected(too_long(text, canonical.size()));
  if (all_digits(split(canonical).back())) return std::unexpected(numeric_end(text));

  // Whoever can register a name that the pattern matches is let in: `*` must stay left of the
  // domain somebody owns.
  std::string sample = canonical;
  std::ranges::replace(sample, '*', 'x');
  const std::size_t owned = public_suffix_labels(sample) + 1;
  const Labels canonical_labels = split(canonical);
  if (last_star + owned >= canonical_labels.size()) {
    std::string hint;
    const std::string_view starred = canonical_labels[last_star];
    if (starred.front() == '*' && last_star == 0 && canonical_labels.size() > 1) {
      const std::string domain = canonical.substr(1);
      hint = "; write \"" + domain + "\" and \"*." + domain + "\"";
      sample.replace(0, 1, "evil");
    } else {
      sample = canonical;
      std::size_t at = sample.rfind('*');
      sample.replace(at, 1, "-evil");
      hint = "; write the names out, or put '*' in front of a domain, like \"*.contoso.com\"";
    }
    return std::unexpected(quoted(text) + " would also match " + sample +
                           ", which anyone may register" + hint);
  }
  return FqdnPattern(Kind::InLabel, std::move(canonical));
}

bool FqdnPattern::matches(std::string_view name) const {
  switch (kind_) {
    case Kind::Exact:
      return name == text_;
    case Kind::Subdomains:
      return below(name, text_);
    case Kind::InLabel:
      break;
  }
  std::string_view pattern = text_;
  for (;;) {
    const auto p = pattern.find('.');
    const auto n = name.find('.');
    if ((p == std::string_view::npos) != (n == std::string_view::npos)) return false;
    if (!Glob(pattern.substr(0, p)).matches(name.substr(0, n))) return false;
    if (p == std::string_view::npos) return true;
    pattern.remove_prefix(p + 1);
    name.remove_prefix(n + 1);
  }
}

bool FqdnPattern::covers(const FqdnPattern& other) const {
  if (other.kind_ == Kind::Exact) return matches(other.text_);
  if (kind_ == Kind::Exact) return false;
  if (kind_ == Kind::Subdomains) {
    // "*.b.a" is below "*.a" as a string, too.
    if (other.kind_ == Kind::Subdomains) return text_ == other.text_ || below(other.text_, text_);
    return suffix_labels(split(other.text_), split(text_),
                         [](std::string_view a, std::string_view b) { return a == b; });
  }
  if (other.kind_ == Kind::Subdomains) return false;
  const Labels a = split(text_), b = split(other.text_);
  return std::ranges::equal(
      a, b, [](std::string_view x, std::string_view y) { return Glob(x).covers(Glob(y)); });
}

bool FqdnPattern::overlaps(const FqdnPattern& other) const {
  if (kind_ == Kind::Exact) return other.matches(text_);
  if (other.kind_ == Kind::Exact) return matches(other.text_);
  if (kind_ == Kind::Subdomains && other.kind_ == Kind::Subdomains)
    return covers(other) || other.covers(*this);
  const auto literal_in_glob = [](std::string_view pattern, std::string_view label) {
    return Glob(pattern).matches(label);
  };
  if (kind_ == Kind::Subdomains)
    return suffix_labels(split(other.text_), split(text_), literal_in_glob);
  if (other.kind_ == Kind::Subdomains)
    return suffix_labels(split(text_), split(other.text_), literal_in_glob);
  const Labels a = split(text_), b = split(other.text_);
  return std::ranges::equal(
      a, b, [](std::string_view x, std::string_view y) { return Glob(x).overlaps(Glob(y)); });
}

std::string FqdnPattern::shared_platform() const {
  if (kind_ == Kind::Exact) return "";
  const auto star = text_.rfind('*');
  const std::string suffix = text_.substr(text_.find('.', star) + 1);
  std::string platform = shared_platform_at(suffix);
  // "*.x" reaches what is further down, a `*` inside a label does not.
  if (platform.empty() && kind_ == Kind::Subdomains) platform = shared_platform_below(suffix);
  return platform;
}

}  // namespace egressd::policy
