#include "analysis/wildcards.h"

#include <algorithm>
#include <array>
#include <iterator>
#include <map>
#include <memory>
#include <string_view>

#include "policy/pattern.h"
#include "policy/public_suffix.h"

namespace egressd::analysis {
namespace {

// Domains where customers choose the label in front, which neither the public suffix list nor the
// table of policy/public_suffix.cpp has. What is here makes no wildcard, and no warning for those
// a person writes.
constexpr std::array<std::string_view, 39> kMorePlatforms = {
    "aliyuncs.com",
    "amazonaws.com.cn",
    "atlassian.net",
    "azure.com",
    "azure.net",
    "azurecontainerapps.io",
    "azuredatabricks.net",
    "azurehdinsight.net",
    "azureml.ms",
    "b-cdn.net",
    "backblazeb2.com",
    "cdn77.org",
    "cloudflarestorage.com",
    "dropboxusercontent.com",
    "edgeone.app",
    "fastly.net",
    "firebaseio.com",
    "gcr.io",
    "ghcr.io",
    "github.dev",
    "googleusercontent.com",
    "loca.lt",
    "mypinata.cloud",
    "myqcloud.com",
    "netlify.com",
    "ngrok-free.app",
    "nip.io",
    "on.aws",
    "oraclecloud.com",
    "pkg.dev",
    "quay.io",
    "serveo.net",
    "sharepoint.com",
    "slack.com",
    "snowflakecomputing.com",
    "sslip.io",
    "usgovcloudapi.net",
    "wasabisys.com",
    "zendesk.com",
};

// What follows the first label; "" after the last.
std::string_view parent_of(std::string_view name) {
  const auto dot = name.find('.');
  return dot == std::string_view::npos ? std::string_view{} : name.substr(dot + 1);
}

std::string platform_at(std::string_view suffix) {
  if (!suffix.contains('.')) return "";
  if (std::ranges::find(kMorePlatforms, suffix) != kMorePlatforms.end()) return std::string(suffix);
  return policy::shared_platform_at(suffix);
}

class Grouper {
 public:
  explicit Grouper(const std::vector<std::string>& names) {
    for (const std::string& name : names) add(name);
  }

  GroupedNames run() {
    Below all = collect(root_, "");
    GroupedNames out;
    for (std::string& name : all.exact) out.groups.push_back({name, {name}});
    for (std::string& name : all.held) out.groups.push_back({name, {name}});
    std::ranges::move(all.groups, std::back_inserter(out.groups));
    std::ranges::sort(out.groups, {}, &NameGroup::pattern);
    out.refusals = std::move(refusals_);
    std::ranges::sort(out.refusals);
    return out;
  }

 private:
  struct Node {
    std::map<std::string_view, std::unique_ptr<Node>> children;
    const std::string* name = nullptr;
  };
  // What was decided of the names below a node.
  struct Below {
    std::vector<std::string> exact;  // may still come under a wildcard
    std::vector<std::string> held;   // on a shared platform: never
    std::vector<NameGroup> groups;
  };

  void add(const std::string& name) {
    Node* node = &root_;
    for (std::string_view rest = name;;) {
      const auto dot = rest.rfind('.');
      const auto label = dot == std::string_view::npos ? rest : rest.substr(dot + 1);
      auto& child = node->children[label];
      if (!child) child = std::make_unique<Node>();
      node = child.get();
      if (dot == std::string_view::npos) break;
      rest = rest.substr(0, dot);
    }
    node->name = &name;
  }

  // A name has 127 labels at most: so deep is the recursion.
  Below collect(const Node& node, const std::string& suffix) {  // NOLINT(misc-no-recursion)
    Below below;
    for (const auto& [label, child] : node.children) {
      Below part = collect(*child, std::string(label) + (suffix.empty() ? "" : "." + suffix));
      std::ranges::move(part.exact, std::back_inserter(below.exact));
      std::ranges::move(part.held, std::back_inserter(below.held));
      std::ranges::move(part.groups, std::back_inserter(below.groups));
    }
    if (!suffix.empty() && below.exact.size() >= kNamesForWildcard) decide(suffix, below);
    if (node.name) below.exact.push_back(*node.name);
    return below;
  }

  void decide(const std::string& suffix, Below& below) {
    // A public suffix, also of a top-level domain the list does not know (policies may have those).
    const auto labels = 1 + static_cast<std::size_t>(std::ranges::count(suffix, '.'));
    if (labels <= policy::public_suffix_labels(suffix)) return;
    const auto pattern = policy::FqdnPattern::parse("*." + suffix);
    if (!pattern) return;
    if (std::string platform = platform_near(*pattern, below); !platform.empty()) {
      refusals_.push_back({suffix, std::move(platform), below.exact.size()});
      std::ranges::move(below.exact, std::back_inserter(below.held));
      below.exact.clear();
      return;
    }
    NameGroup group{pattern->text(), std::move(below.exact)};
    for (NameGroup& inner : below.groups)
      std::ranges::move(inner.names, std::back_inserter(group.names));
    std::ranges::sort(group.names);
    below.exact.clear();
    below.groups.clear();
    below.groups.push_back(std::move(group));
  }

  // A platform that the wildcard is on or reaches, whether the domain is on it, one of the names
  // is, or only the table of policy/public_suffix.cpp knows of one further down.
  static std::string platform_near(const policy::FqdnPattern& pattern, const Below& below) {
    if (!below.held.empty()) return shared_platform_of(below.held.front());
    for (const std::string& name : below.exact)
      if (std::string platform = shared_platform_of(name); !platform.empty()) return platform;
    return pattern.shared_platform();
  }

  Node root_;
  std::vector<WildcardRefusal> refusals_;
};

}  // namespace

std::string shared_platform_of(const std::string& name) {
  for (std::string_view suffix = name; !suffix.empty(); suffix = parent_of(suffix))
    if (std::string platform = platform_at(suffix); !platform.empty()) return platform;
  return "";
}

GroupedNames group_names(const std::vector<std::string>& names) { return Grouper(names).run(); }

}  // namespace egressd::analysis
