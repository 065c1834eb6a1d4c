#include "enforce/nft_rules.h"

#include <gtest/gtest.h>

namespace egressd::enforce {
namespace {

using Prefixes = std::vector<std::pair<net::Prefix, std::uint32_t>>;

net::Prefix prefix(const char* text) { return *net::Prefix::parse(text); }

std::string ranges(const Prefixes& prefixes, bool v4) {
  std::string text;
  for (const AddressRange& range : flatten(prefixes, v4))
    text += (text.empty() ? "" : " ") + range.first.to_string() + "-" + range.last.to_string() +
            "=" + std::to_string(range.list);
  return text;
}

TEST(Flatten, TheLongestPrefixDecides) {
  EXPECT_EQ(ranges({{prefix("10.0.0.0/8"), 1},
                    {prefix("10.1.0.0/16"), 2},
                    {prefix("10.1.2.3/32"), 3},
                    {prefix("10.255.255.255/32"), 4},
                    {prefix("192.0.2.0/24"), 5}},
                   true),
            "10.0.0.0-10.0.255.255=1 10.1.0.0-10.1.2.2=2 10.1.2.3-10.1.2.3=3 "
            "10.1.2.4-10.1.255.255=2 10.2.0.0-10.255.255.254=1 10.255.255.255-10.255.255.255=4 "
            "192.0.2.0-192.0.2.255=5");
}

TEST(Flatten, NeighboursWithTheSameRulesAreOne) {
  EXPECT_EQ(ranges({{prefix("10.0.0.0/25"), 1}, {prefix("10.0.0.128/25"), 1}}, true),
            "10.0.0.0-10.0.0.255=1");
}

TEST(Flatten, BothEndsOfTheAddresses) {
  EXPECT_EQ(ranges({{prefix("0.0.0.0/0"), 1}, {prefix("255.255.255.255/32"), 2}}, true),
            "0.0.0.0-255.255.255.254=1 255.255.255.255-255.255.255.255=2");
  EXPECT_EQ(ranges({{prefix("::/0"), 1}, {prefix("8000::/1"), 2}}, false),
            "::-7fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff=1 "
            "8000::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff=2");
  EXPECT_EQ(ranges({{prefix("::/0"), 1}}, false), "::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff=1");
}

TEST(Flatten, FamiliesAreApart) {
  const Prefixes both{{prefix("::/0"), 1}, {prefix("10.0.0.0/8"), 2}};
  EXPECT_EQ(ranges(both, true), "10.0.0.0-10.255.255.255=2");
}

// By brute force: every address has the list of the longest prefix that holds it.
TEST(Flatten, AgreesWithLookingForTheLongestPrefix) {
  std::uint32_t seed = 1;
  const auto random = [&](std::uint32_t below) {
    seed = seed * 1664525 + 1013904223;
    return (seed >> 8) % below;
  };
  for (int round = 0; round < 200; ++round) {
    std::map<net::Prefix, std::uint32_t> prefixes;
    for (std::uint32_t i = 0; i < 12; ++i)
      prefixes.emplace(net::Prefix::host(net::IpAddress::v4(0xcb007100 + random(256)))
                           .widened(24 + static_cast<int>(random(9))),
                       random(4));
    const auto flat = flatten({prefixes.begin(), prefixes.end()}, true);
    for (std::uint32_t last = 0; last < 256; ++last) {
      const auto address = net::IpAddress::v4(0xcb007100 + last);
      int longest = -1;
      std::uint32_t wanted = 0;
      for (const auto& [p, list] : prefixes) {
        if (p.contains(address) && p.length() > longest) {
          longest = p.length();
          wanted = list;
        }
      }
      int found = 0;
      for (const AddressRange& range : flat) {
        if (address < range.first || range.last < address) continue;
        ++found;
        EXPECT_EQ(range.list, wanted);
      }
      EXPECT_EQ(found, longest < 0 ? 0 : 1);
    }
  }
}

TEST(NameForm, PlainPortsAreElementsAndTheRestIsWalked) {
  RuleSet rules;
  rules.generation = 1;
  const RuleEntry https{.protocol = net::Protocol::Tcp, .ports = {443, 443}};
  RuleEntry range = https;
  range.ports.last = 444;
  RuleEntry denied = https;
  denied.action = Action::Deny;
  RuleEntry audited = https;
  audited.audit = true;
  RuleEntry any = https;
  any.protocol = net::Protocol::Any;
  rules.lists = {{https}, {range}, {denied, https}, {audited}, {any}};
  for (std::uint32_t i = 0; i < rules.lists.size(); ++i)
    rules.names.push_back({.name_id = i + 1, .list = i, .pattern = "x"});
  const NftRules compiled(rules);
  EXPECT_EQ(compiled.forms().at(1).flows.size(), 1u);
  EXPECT_FALSE(compiled.forms().at(1).list);
  for (std::uint32_t id = 2; id <= 5; ++id) {
    EXPECT_TRUE(compiled.forms().at(id).flows.empty()) << id;
    EXPECT_EQ(compiled.forms().at(id).list, id - 1);
  }
  EXPECT_EQ(compiled.listed(), (std::set<std::uint32_t>{1, 2, 3, 4}));
}

}  // namespace
}  // namespace egressd::enforce
