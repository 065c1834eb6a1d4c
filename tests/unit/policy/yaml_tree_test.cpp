#include "policy/yaml_tree.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "policy/parser.h"

namespace egressd::policy {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::StartsWith;

// The tree in one line: 'scalar', ~, [items], {keys: values}.
std::string shown(const YamlNode& node) {
  std::string out;
  switch (node.kind) {
    case YamlNode::Kind::Null:
      return "~";
    case YamlNode::Kind::Scalar:
      return "'" + std::string(node.text) + "'";
    case YamlNode::Kind::Sequence:
      for (const YamlNode* item : node.items) out += (out.empty() ? "" : ", ") + shown(*item);
      return "[" + out + "]";
    case YamlNode::Kind::Map:
      for (const auto& [key, value] : node.members)
        out += (out.empty() ? "" : ", ") + shown(*key) + ": " + shown(*value);
      return "{" + out + "}";
  }
  return "?";
}

// "LINE:COLUMN: MESSAGE" for what is refused.
std::string tree(std::string_view text) {
  const auto parsed = YamlTree::parse(text);
  if (parsed) return shown(parsed->root());
  return std::to_string(parsed.error().line) + ":" + std::to_string(parsed.error().column) + ": " +
         parsed.error().message;
}

TEST(YamlTree, ReadsEveryStyle) {
  EXPECT_EQ(tree(""), "~");
  EXPECT_EQ(tree("# nothing\n"), "~");
  EXPECT_EQ(tree("a: [b, 'c', \"d\"]\ne: {f, g: h}\n"),
            "{'a': ['b', 'c', 'd'], 'e': {'f': ~, 'g': 'h'}}");
  EXPECT_EQ(tree("- |\n  a\n  b\n- >\n  c\n  d\n"), "['a\nb\n', 'c d\n']");
  EXPECT_EQ(tree("a: x\r\nb: y\r\n"), "{'a': 'x', 'b': 'y'}");
  EXPECT_EQ(tree("%YAML 1.2\n---\na: b\n...\n"), "{'a': 'b'}");
  EXPECT_EQ(tree("\xef\xbb\xbf"
                 "a: b"),
            "{'a': 'b'}");
}

TEST(YamlTree, NullIsPlainAndWithoutTag) {
  EXPECT_EQ(tree("[~, null, Null, NULL, nuLL, \"null\", '~', \"\", !!str null, a: ]"),
            "[~, ~, ~, ~, 'nuLL', 'null', '~', '', 'null', {'a': ~}]");
  EXPECT_EQ(tree("a: !!str 443\nb: !!int \"1\""), "{'a': '443', 'b': '1'}");
}

TEST(YamlTree, AWordMayBeginWithAColon) {
  EXPECT_EQ(tree("a: [::1, ::/0 ,::2,\n::ffff:0:0/96]"),
            "{'a': ['::1', '::/0', '::2', '::ffff:0:0/96']}");
  EXPECT_EQ(tree("{a: ::1, ::2: b}"), "{'a': '::1', '::2': 'b'}");
  EXPECT_EQ(tree("a: ::1 # [::2]\nb: ::3\n::4: c"), "{'a': '::1', 'b': '::3', '::4': 'c'}");
  // What looks the same and is not.
  EXPECT_EQ(tree("[\"[::1, ::/0]\", '{ ::1', {\"a\":b, \"c\" :d, e: f}, [::5]]"),
            "['[::1, ::/0]', '{ ::1', {'a': 'b', 'c': 'd', 'e': 'f'}, ['::5']]");
  EXPECT_EQ(tree("a: |\n  [::1]\n   :x\nb: [::2]"), "{'a': '[::1]\n :x\n', 'b': ['::2']}");
  // The letter that stands in for the colon is one that the text does not have.
  EXPECT_EQ(tree("[\xee\x80\x80, ::1]"), "['\xee\x80\x80', '::1']");
  EXPECT_THAT(tree("a: [fe80::]"),
              AllOf(StartsWith("1:10: "), HasSubstr("put the value in quotes")));
}

TEST(YamlTree, PositionsAreLinesAndBytes) {
  const auto parsed =
      YamlTree::parse("\xc3\xa4: [\xe2\x82\xac, ::1, \xf0\x9f\x99\x82, x]\n\xc3\xb6: [y]\n");
  ASSERT_TRUE(parsed);
  const YamlNode& root = parsed->root();
  ASSERT_EQ(shown(root),
            "{'\xc3\xa4': ['\xe2\x82\xac', '::1', '\xf0\x9f\x99\x82', 'x'], '\xc3\xb6': ['y']}");
  const YamlNode& first = *root.members[0].second;
  EXPECT_EQ(first.items[0]->column, 6);
  EXPECT_EQ(first.items[1]->column, 11);
  EXPECT_EQ(first.items[2]->column, 16);
  EXPECT_EQ(first.items[3]->column, 22);
  EXPECT_EQ(root.members[1].first->line, 2);
  EXPECT_EQ(root.members[1].second->items[0]->column, 6);
  // Only "\n" ends a line, as in an editor.
  EXPECT_THAT(tree("a: \"\xe2\x80\xa8\"\nb: *c"), StartsWith("2:4: "));
  EXPECT_THAT(tree("\xef\xbb\xbf"
                   "b: *c"),
              StartsWith("1:4: "));
}

TEST(YamlTree, SaysHowToQuoteAStar) {
  for (const std::string word : {"*", "*a", "*.a.b", "*a.b", "*-\xc3\xa4"})
    EXPECT_EQ(tree("x: [\xc3\xa4, " + word + "]"),
              "1:9: YAML reads a value that begins with * as an alias; put it in quotes: \"" +
                  word + "\"");
}

TEST(YamlTree, SaysWhereItEnds) {
  EXPECT_THAT(tree("a: [b,\n  c\nd: e"),
              AllOf(StartsWith("3:2: not valid YAML: "), HasSubstr("begins in line 1")));
  EXPECT_THAT(tree("a: b\n\tc: d"), AllOf(StartsWith("2:1: "), HasSubstr("indent with spaces")));
  EXPECT_THAT(tree("a:\n\tc: d"), AllOf(StartsWith("2:1: "), HasSubstr("indent with spaces")));
  EXPECT_THAT(tree("\xc3\xa4: \x01"), AllOf(StartsWith("1:5: control character")));
  EXPECT_THAT(tree("[::1]\n# \x7f"), AllOf(StartsWith("2:3: control character")));
  EXPECT_THAT(tree("a: 1\n---\n"), HasSubstr("second YAML document"));
}

TEST(YamlTree, AliasesAreTheNodeOfTheLatestAnchor) {
  EXPECT_EQ(tree("[&a x, *a, &a y, *a]"), "['x', 'x', 'y', 'y']");
  EXPECT_EQ(tree("{&a k: v, *a : w}"), "{'k': 'v', 'k': 'w'}");
  EXPECT_EQ(tree("a: &x [b, *x]"), "1:11: this alias refers to a node that contains it");
  EXPECT_THAT(tree("a: &b.c d"), HasSubstr("a name behind & has letters, digits, - and _"));
}

}  // namespace
}  // namespace egressd::policy
