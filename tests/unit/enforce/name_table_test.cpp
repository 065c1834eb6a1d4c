#include "enforce/name_table.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <optional>
#include <string>

namespace egressd::enforce {
namespace {

using ::testing::HasSubstr;

constexpr NameKey kKey{0x0123456789abcdefULL, 0xfedcba9876543210ULL};

NameTable must_build(std::initializer_list<NamePattern> patterns) {
  const std::vector<NamePattern> list(patterns);
  auto table = build_name_table(list, kKey);
  EXPECT_TRUE(table.has_value()) << (table ? "" : table.error().message);
  return table ? *std::move(table) : NameTable{};
}

// The node a name without `*` leads to.
std::optional<egressd_dns_node> node_of(const NameTable& table, std::string name) {
  egressd_dns_node_key at{};
  for (;;) {
    const auto dot = name.rfind('.');
    at = child_key(kKey, at, dot == std::string::npos ? name : name.substr(dot + 1));
    if (dot == std::string::npos) {
      break;
    }
    name.resize(dot);
  }
  for (const auto& n : table.nodes) {
    if (n.key.lo == at.lo && n.key.hi == at.hi) {
      return n.node;
    }
  }
  return std::nullopt;
}

std::string error_of(const NamePattern& pattern) {
  const auto table = build_name_table({&pattern, 1}, kKey);
  return table ? "" : table.error().message;
}

TEST(NameTable, StoresEveryNodeOnTheWay) {
  const auto table = must_build({{"ml.azure.com", 7, false}});
  ASSERT_EQ(table.nodes.size(), 3U);
  EXPECT_EQ(node_of(table, "com")->flags, EGRESSD_DNS_NODE_CHILDREN);
  EXPECT_EQ(node_of(table, "azure.com")->exact_id, 0U);
  EXPECT_EQ(node_of(table, "ml.azure.com")->exact_id, 7U);
  EXPECT_EQ(node_of(table, "ml.azure.com")->flags, 0);
  EXPECT_FALSE(node_of(table, "azure.org"));
}

TEST(NameTable, SubtreePatternDoesNotGrantTheApex) {
  const auto table = must_build({{"*.azureml.ms", 3, false}});
  const auto node = node_of(table, "azureml.ms");
  ASSERT_TRUE(node);
  EXPECT_EQ(node->subtree_id, 3U);
  EXPECT_EQ(node->exact_id, 0U);
}

TEST(NameTable, NameAndSubtreeShareANode) {
  const auto table = must_build({{"*.pypi.org", 3, true}, {"pypi.org", 4, false}});
  EXPECT_EQ(table.nodes.size(), 2U);
  const auto node = node_of(table, "pypi.org");
  EXPECT_EQ(node->subtree_id, 3U);
  EXPECT_EQ(node->exact_id, 4U);
  EXPECT_EQ(node->flags, EGRESSD_DNS_NODE_SUBTREE_PRIVATE);
}

TEST(NameTable, InLabelPatternHangsBelowItsParentOnly) {
  const auto table = must_build({{"md-*x.blob.example.net", 9, true}});
  ASSERT_EQ(table.globs.size(), 1U);
  const auto parent = node_of(table, "blob.example.net");
  ASSERT_TRUE(parent);
  EXPECT_EQ(parent->glob_start, 0U);
  EXPECT_EQ(parent->glob_count, 1U);
  EXPECT_EQ(parent->flags, 0);  // no plain children
  const auto& glob = table.globs[0];
  EXPECT_EQ(glob.prefix_len, 3);
  EXPECT_EQ(glob.suffix_len, 1);
  EXPECT_STREQ(reinterpret_cast<const char*>(glob.text), "md-x");
  // A client may put a literal `*` into a label: it must not reach the pattern's node.
  EXPECT_FALSE(node_of(table, "md-*x.blob.example.net"));
}

TEST(NameTable, OnePrefixSharedByTwoInLabelPatternsIsOneGlob) {
  const auto table = must_build({{"a*.x.test", 1, false}, {"*.a*.x.test", 2, false}});
  ASSERT_EQ(table.globs.size(), 1U);
  EXPECT_EQ(node_of(table, "x.test")->glob_count, 1U);
}

TEST(NameTable, AskOnlyGrantsNothing) {
  const auto table = must_build({{"*.svc.cluster.local", EGRESSD_DNS_ASK_ONLY, false},
                                 {"corp.test", EGRESSD_DNS_ASK_ONLY, false}});
  const auto node = node_of(table, "svc.cluster.local");
  EXPECT_EQ(node->subtree_id, 0U);
  EXPECT_EQ(node->flags, EGRESSD_DNS_NODE_ASK_SUBTREE);
  EXPECT_EQ(node_of(table, "corp.test")->flags, EGRESSD_DNS_NODE_ASK_EXACT);
}

TEST(NameTable, KeysDependOnTheSecretAndOnTheBorders) {
  const auto ab_c = child_key(kKey, child_key(kKey, {}, "c"), "ab");
  const auto a_bc = child_key(kKey, child_key(kKey, {}, "bc"), "a");
  EXPECT_NE(ab_c.lo, a_bc.lo);
  const NameKey other{kKey[0], kKey[1] + 1};
  EXPECT_NE(child_key(kKey, {}, "com").lo, child_key(other, {}, "com").lo);
  EXPECT_NE(child_key(kKey, {}, "com").hi, child_key(other, {}, "com").hi);
  // 7, 8 and 63 bytes: below, at and far over the word border.
  EXPECT_NE(child_key(kKey, {}, "aaaaaaa").lo, child_key(kKey, {}, "aaaaaaaa").lo);
  EXPECT_NE(child_key(kKey, {}, std::string(62, 'a')).lo,
            child_key(kKey, {}, std::string(63, 'a')).lo);
}

TEST(NameTable, RefusesWhatTheKernelCannotWalk) {
  EXPECT_THAT(error_of({"a.test", 0, false}), HasSubstr("has no id"));
  EXPECT_THAT(error_of({"*", 1, false}), HasSubstr("matches every name"));
  EXPECT_THAT(error_of({"a..test", 1, false}), HasSubstr("1 to 63"));
  EXPECT_THAT(error_of({std::string(64, 'a') + ".test", 1, false}), HasSubstr("1 to 63"));
  EXPECT_THAT(error_of({"a*b*.test", 1, false}), HasSubstr("two `*`"));
  EXPECT_THAT(error_of({"a*", 1, false}), HasSubstr("too many"));
}

TEST(NameTable, RefusesOneTextWithTwoIds) {
  const std::vector<NamePattern> patterns{{"a.test", 1, false}, {"a.test", 2, false}};
  EXPECT_FALSE(build_name_table(patterns, kKey));
  const std::vector<NamePattern> same{{"a.test", 1, false}, {"a.test", 1, false}};
  EXPECT_TRUE(build_name_table(same, kKey));
}

TEST(NameTable, RefusesMoreInLabelPatternsThanAreTried) {
  std::vector<NamePattern> patterns;
  for (std::uint32_t i = 0; i < EGRESSD_DNS_MAX_GLOBS; ++i) {
    patterns.push_back({"p" + std::to_string(i) + "-*.x.test", i + 1, false});
  }
  EXPECT_TRUE(build_name_table(patterns, kKey));
  patterns.push_back({"more-*.x.test", 99, false});
  EXPECT_FALSE(build_name_table(patterns, kKey));
}

}  // namespace
}  // namespace egressd::enforce
