#include "policy/tags.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <fstream>
#include <set>
#include <sstream>

#include "policy/builtin_tags.h"
#include "policy/parser.h"

namespace egressd::policy {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

const TagParameters kAll = {{"region", {"eastus", "westus2"}},
                            {"storage", {"mystorage"}},
                            {"acr", {"myacr"}},
                            {"workspace-id", {"1234abcd"}}};

TEST(BuiltinTags, FileParses) {
  const auto catalog = TagCatalog::parse(kBuiltinTags, "azure.yaml");
  ASSERT_TRUE(catalog) << catalog.error();
  EXPECT_EQ(catalog->tags().size(), TagCatalog::builtin().tags().size());
  for (const char* name :
       {"AzureMachineLearning", "AzureMachineLearning-2020", "AzureMachineLearningKubernetes",
        "AzureKubernetesService", "PythonPackages", "RPackages", "HuggingFace", "VSCode",
        "AzurePlatform", "UbuntuUpdates"})
    EXPECT_TRUE(catalog->find(name)) << name;
  EXPECT_FALSE(catalog->find("azuremachinelearning"));
}

TEST(BuiltinTags, EveryTagExpandsInEveryCloudItKnowsAndParses) {
  for (const Tag& tag : TagCatalog::builtin().tags())
    for (const std::string cloud : {"public", "usgov", "china"}) {
      SCOPED_TRACE(tag.name + " in " + cloud);
      const TagExpansion expansion = expand_tag(tag, cloud, kAll);
      EXPECT_TRUE(expansion.missing.empty());
      EXPECT_FALSE(expansion.too_large);
      std::set<std::string> names;
      std::size_t targets = 0;
      for (const Rule& rule : expansion.rules) {
        EXPECT_TRUE(names.insert(rule.name).second) << rule.name;
        EXPECT_EQ(rule.tag, tag.name);
        EXPECT_NE(rule.fqdns.empty(), rule.prefixes.empty());
        targets += rule.fqdns.size() + rule.prefixes.size();
      }
      std::size_t expected = 0;
      for (const TagEntry& entry : tag.entries)
        if (entry.cloud == "all" || entry.cloud == cloud)
          for (const std::string& text : entry.opens())
            expected += std::ranges::count(placeholders(text), "region") > 0 ? 2u : 1u;
      EXPECT_EQ(targets, expected);

      const std::string text = "version: 1\nmode: enforce\ncloud: " + cloud + "\ntags: [" +
                               tag.name +
                               "]\nparameters: {region: [eastus, westus2], storage: mystorage, "
                               "acr: myacr, workspace-id: 1234abcd}\n";
      const auto parsed = parse_policy(text, "t.yaml", TagCatalog::builtin());
      if (expected > 0) {
        ASSERT_TRUE(parsed) << parsed.error().front().to_string();
        ASSERT_EQ(parsed->policy.collections.size(), 1u);
        EXPECT_EQ(parsed->policy.collections[0].name, "tags");
        EXPECT_EQ(parsed->policy.collections[0].priority, 65000u);
        EXPECT_EQ(parsed->policy.collections[0].rules.size(), expansion.rules.size());
      } else {
        ASSERT_FALSE(parsed);
        EXPECT_THAT(parsed.error().front().message, HasSubstr("has no destinations in cloud"));
      }
    }
}

TEST(BuiltinTags, TheArticleOf2020IsExactlyItsFourteenHosts) {
  const Tag* tag = TagCatalog::builtin().find("AzureMachineLearning-2020");
  ASSERT_TRUE(tag);
  std::vector<std::string> hosts;
  for (const TagEntry& entry : tag->entries) {
    hosts.push_back(entry.destination);
    EXPECT_THAT(entry.ports, ElementsAre(net::PortRange{}));
    EXPECT_THAT(entry.protocols, ElementsAre(net::Protocol::Any));
    EXPECT_EQ(entry.cloud, "all");
  }
  EXPECT_THAT(hosts, ElementsAre("*.batchai.core.windows.net", "ml.azure.com", "*.azureml.ms",
                                 "*.experiments.azureml.net", "*.modelmanagement.azureml.net",
                                 "mlworkspace.azure.ai", "*.aether.ms", "*.instances.azureml.net",
                                 "windows.net", "vault.azure.net", "microsoft.com", "azurecr.io",
                                 "anaconda.com", "pypi.org"));
  EXPECT_THAT(tag->entries[8].opens(), ElementsAre("windows.net", "*.windows.net"));
  EXPECT_TRUE(tag->entries[8].exfiltration_risk);
  EXPECT_THAT(tag->entries[12].opens(),
              ElementsAre("anaconda.com", "*.anaconda.com", "conda.anaconda.org", "anaconda.org"));
  EXPECT_THAT(tag->entries[13].opens(),
              ElementsAre("pypi.org", "*.pypi.org", "files.pythonhosted.org"));
  // Protocol any of a name is TCP and UDP.
  const TagExpansion expansion = expand_tag(*tag, "public", {});
  ASSERT_EQ(expansion.rules.size(), 14u);
  for (const Rule& rule : expansion.rules)
    EXPECT_THAT(rule.protocols, ElementsAre(net::Protocol::Tcp, net::Protocol::Udp));
}

std::string with_values(std::string text) {
  for (auto open = text.find('<'); open != std::string::npos; open = text.find('<'))
    text.replace(open, text.find('>', open) + 1 - open, "x");
  return text;
}

TEST(BuiltinTags, OtherPeoplesAccountsAreFlagged) {
  for (const Tag& tag : TagCatalog::builtin().tags())
    for (const TagEntry& entry : tag.entries)
      for (const std::string& text : entry.opens()) {
        const auto pattern = FqdnPattern::parse(with_values(text));
        if (!pattern || pattern->shared_platform().empty()) continue;
        EXPECT_TRUE(entry.exfiltration_risk) << tag.name << " " << text;
      }
}

// The names below are handed out, or anyone may publish there: whoever may write to it can read
// it elsewhere.
TEST(BuiltinTags, NamesAnyTenantCanOwnAreFlagged) {
  std::set<std::string> found;
  const std::set<std::string> expected = {"*.hcp.<location>.azmk8s.io",
                                          "*.<region>.batch.azure.com",
                                          "*.instances.azureml.net",
                                          "*.instances.azureml.ms",
                                          "*.instances.azureml.us",
                                          "*.instances.azureml.cn",
                                          "*.azureml.ms",
                                          "*.notebooks.azure.net",
                                          "*.batchai.core.windows.net",
                                          "*.hcp.<location>.cx.prod.service.azk8s.cn",
                                          "*.azk8s.cn",
                                          "*.vo.msecnd.net",
                                          "pypi.org",
                                          "*.pythonhosted.org",
                                          "anaconda.com",
                                          "*.anaconda.org"};
  for (const Tag& tag : TagCatalog::builtin().tags())
    for (const TagEntry& entry : tag.entries)
      if (expected.contains(entry.destination)) {
        found.insert(entry.destination);
        EXPECT_TRUE(entry.exfiltration_risk) << tag.name << " " << entry.destination;
      }
  EXPECT_EQ(found, expected);
}

bool opens(const TagEntry& entry, const std::string& destination, const std::string& ports,
           const std::string& protocol) {
  const auto same = [&](std::string text) {
    if (const auto at = text.find("<location>"); at != std::string::npos)
      text.replace(at, 10, "<region>");
    return text == destination;
  };
  if (std::ranges::none_of(entry.opens(), same)) return false;
  const auto has = [&](net::Protocol p) {
    return std::ranges::any_of(entry.protocols,
                               [&](net::Protocol q) { return q == p || q == net::Protocol::Any; });
  };
  const bool tcp = protocol.find("tcp") != std::string::npos || protocol == "any";
  const bool udp = protocol.find("udp") != std::string::npos || protocol == "any";
  if ((tcp && !has(net::Protocol::Tcp)) || (udp && !has(net::Protocol::Udp))) return false;
  std::istringstream list(ports);
  for (std::string port; std::getline(list, port, ',');)
    if (std::ranges::none_of(entry.ports, [&](const net::PortRange& range) {
          return range.contains(static_cast<std::uint16_t>(std::stoi(port)));
        }))
      return false;
  return true;
}

TEST(BuiltinTags, EveryDocumentedDestinationIsInATagOrInItsNotes) {
  std::ifstream in(EGRESSD_AZURE_DESTINATIONS);
  std::size_t rows = 0;
  for (std::string line; std::getline(in, line);) {
    if (line.starts_with('#')) continue;
    ++rows;
    std::istringstream fields(line);
    std::string section, cloud, destination, ports, protocol;
    std::getline(fields, section, '\t');
    std::getline(fields, cloud, '\t');
    std::getline(fields, destination, '\t');
    std::getline(fields, ports, '\t');
    std::getline(fields, protocol, '\t');
    // The article of 2020 allowed every port; the tag of that name holds 14 of its hosts.
    if (ports == "any") ports.clear();
    if (section == "aml-2020") protocol.clear();
    bool found = false;
    for (const Tag& tag : TagCatalog::builtin().tags()) {
      if (destination.starts_with("note:"))
        found = found || std::ranges::any_of(tag.notes, [&](const std::string& note) {
                  return note.find(destination.substr(5)) != std::string::npos;
                });
      for (const TagEntry& entry : tag.entries)
        found = found || ((entry.cloud == "all" || entry.cloud == cloud) &&
                          opens(entry, destination, ports, protocol));
    }
    EXPECT_TRUE(found) << line;
  }
  EXPECT_GT(rows, 200u);
}

TEST(BuiltinTags, PlatformAddressesAreNetworkRules) {
  const Tag* tag = TagCatalog::builtin().find("AzurePlatform");
  ASSERT_TRUE(tag);
  const auto rules = expand_tag(*tag, "china", {}).rules;
  ASSERT_EQ(rules.size(), 4u);
  EXPECT_EQ(rules[0].name, "AzurePlatform:168.63.129.16");
  EXPECT_EQ(rules[1].name, "AzurePlatform:168.63.129.16:53/tcp+udp");
  EXPECT_EQ(rules[2].name, "AzurePlatform:168.63.129.16:67/udp");
  for (const Rule& rule : rules) EXPECT_TRUE(rule.is_network());
  EXPECT_THAT(rules[0].ports, ElementsAre(net::PortRange{80, 80}, net::PortRange{32526, 32526}));
}

TEST(ExpandTag, EachValueMakesARuleAndLocationIsRegion) {
  const auto catalog = TagCatalog::parse(
      "version: 1\ntags:\n  - name: A\n    title: t\n    source: s\n    date: 2026-01-01\n"
      "    entries:\n      - {destination: <acr>.<location>.data.azurecr.io, cloud: public, "
      "ports: [443], protocols: [tcp]}\n",
      "t.yaml");
  ASSERT_TRUE(catalog) << catalog.error();
  const auto expansion = expand_tag(*catalog->find("A"), "public",
                                    {{"acr", {"a", "b"}}, {"region", {"eastus", "westus"}}});
  std::vector<std::string> names;
  for (const Rule& rule : expansion.rules) names.push_back(rule.name);
  EXPECT_THAT(names, testing::UnorderedElementsAre(
                         "A:a.eastus.data.azurecr.io", "A:b.eastus.data.azurecr.io",
                         "A:a.westus.data.azurecr.io", "A:b.westus.data.azurecr.io"));
  const auto open = expand_tag(*catalog->find("A"), "public", {{"acr", {"a"}}});
  EXPECT_TRUE(open.rules.empty());
  EXPECT_THAT(open.missing, ElementsAre(std::pair<std::string, std::string>(
                                "region", "<acr>.<location>.data.azurecr.io")));
  std::vector<std::string> many;
  for (int i = 0; i < 400; ++i) many.push_back("v" + std::to_string(i));
  EXPECT_TRUE(
      expand_tag(*catalog->find("A"), "public", {{"acr", many}, {"region", many}}).too_large);
}

TEST(TagCatalog, ReportsEveryErrorWithItsPosition) {
  const auto catalog = TagCatalog::parse(
      "version: 2\n"
      "tags:\n"
      "  - name: A\n"
      "    title: t\n"
      "    source: s\n"
      "    date: yesterday\n"
      "    entries:\n"
      "      - {destination: \"*com\", cloud: mars, port: 1, ports: [0], protocols: [icmp]}\n",
      "t.yaml");
  ASSERT_FALSE(catalog);
  for (const char* expected :
       {"t.yaml:1:10: error: version '2'", "t.yaml:6:11: error: 'yesterday' is no date",
        "t.yaml:8:23: error: '*com' would also match", "t.yaml:8:38: error: unknown cloud 'mars'",
        "t.yaml:8:44: error: unknown key 'port'", "t.yaml:8:61: error: port 0 is out of range",
        "t.yaml:8:77: error: a tag entry's protocol"})
    EXPECT_THAT(catalog.error(), HasSubstr(expected));
}

TEST(TagCatalog, RefusesDuplicateTags) {
  const std::string one =
      "  - {name: A, title: t, source: s, date: 2026-01-01, entries: [{destination: a.b, ports: "
      "[1], protocols: [tcp]}]}\n";
  EXPECT_TRUE(TagCatalog::parse("version: 1\ntags:\n" + one, "t"));
  EXPECT_THAT(TagCatalog::parse("version: 1\ntags:\n" + one + one, "t").error(),
              HasSubstr("t:4:5: error: tag 'A' is defined twice"));
}

}  // namespace
}  // namespace egressd::policy
