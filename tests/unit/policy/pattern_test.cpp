#include "policy/pattern.h"

#include <gmock/gmock.h>

#include <set>
#include <string>
#include <vector>

namespace egressd::policy {
namespace {

using testing::HasSubstr;

FqdnPattern pattern(std::string_view text) {
  auto p = FqdnPattern::parse(text);
  EXPECT_TRUE(p) << text << ": " << p.error();
  return p ? *p : *FqdnPattern::parse("invalid.example");
}

std::string error_of(std::string_view text) {
  const auto p = FqdnPattern::parse(text);
  return p ? "accepted as " + p->text() : p.error();
}

std::string repeat(std::string_view unit, int n) {
  std::string out;
  for (int i = 0; i < n; ++i) out += unit;
  return out;
}

TEST(CanonicalFqdn, LowersCaseAndDropsTheTrailingDot) {
  EXPECT_EQ(canonical_fqdn("ML.Azure.COM."), "ml.azure.com");
  EXPECT_EQ(canonical_fqdn("_ldap._tcp.contoso.com"), "_ldap._tcp.contoso.com");
  EXPECT_EQ(canonical_fqdn("localhost"), "localhost");
}

TEST(CanonicalFqdn, ConvertsUnicodeToALabels) {
  EXPECT_EQ(canonical_fqdn("Bücher.example"), "xn--bcher-kva.example");
  // Non-transitional: ß stays a letter of its own.
  EXPECT_EQ(canonical_fqdn("straße.example"), "xn--strae-oqa.example");
  EXPECT_EQ(canonical_fqdn("例え。テスト"), "xn--r8jz45g.xn--zckzah");
  EXPECT_FALSE(canonical_fqdn("a\xe2\x80\x8e\xc3\xbc.example"));  // left-to-right mark
}

TEST(CanonicalFqdn, HoldsTheLimitsOfDns) {
  const std::string label63(63, 'a');
  EXPECT_TRUE(canonical_fqdn(label63 + ".com"));
  EXPECT_THAT(canonical_fqdn(label63 + "a.com").error(), HasSubstr("has 64 bytes"));
  const std::string name253 = repeat(label63 + ".", 3) + std::string(61, 'b');
  ASSERT_EQ(name253.size(), 253u);
  EXPECT_EQ(canonical_fqdn(name253), name253);
  EXPECT_EQ(canonical_fqdn(name253 + "."), name253);
  EXPECT_THAT(canonical_fqdn(name253 + "b").error(), HasSubstr("253"));
  EXPECT_TRUE(canonical_fqdn(repeat("a.", 126) + "a"));  // 127 labels
  EXPECT_FALSE(canonical_fqdn(repeat("a.", 127) + "a"));
}

TEST(CanonicalFqdn, RefusesWhatIsNoName) {
  for (const std::string_view text : {"",
                                      ".",
                                      "..",
                                      "a..b",
                                      ".a",
                                      "-a.com",
                                      "a-.com",
                                      "a b.com",
                                      "a,b.com",
                                      "10.0.0.1",
                                      "::1",
                                      "1.2.3",
                                      "10.0.0.0/8",
                                      "a.com/x",
                                      "a.com:443",
                                      "https://a.com",
                                      "u@a.com",
                                      "*.a.com",
                                      "<region>.a.com",
                                      "a\x01.com"})
    EXPECT_FALSE(canonical_fqdn(text)) << text;
  EXPECT_FALSE(canonical_fqdn(std::string_view("a\0b.com", 7)));
}

TEST(FqdnPattern, WildcardMatchesOneOrMoreLabelsAndNeverTheApex) {
  const auto p = pattern("*.azureml.ms");
  EXPECT_EQ(p.kind(), FqdnPattern::Kind::Subdomains);
  EXPECT_TRUE(p.matches("w.workspace.r.api.azureml.ms"));
  EXPECT_TRUE(p.matches("a.azureml.ms"));
  EXPECT_FALSE(p.matches("azureml.ms"));
  EXPECT_FALSE(p.matches("evilazureml.ms"));
  EXPECT_FALSE(p.matches("azureml.ms.evil.com"));
}

TEST(FqdnPattern, ExactMatchesOnlyItself) {
  const auto p = pattern("ML.azure.com.");
  EXPECT_EQ(p.text(), "ml.azure.com");
  EXPECT_TRUE(p.matches("ml.azure.com"));
  EXPECT_FALSE(p.matches("a.ml.azure.com"));
  EXPECT_FALSE(p.matches("azure.com"));
}

TEST(FqdnPattern, EveryStarHasRoomInANameOf253Bytes) {
  const std::string rest = "." + repeat(std::string(59, 'a') + ".", 4) + "contoso.com";
  ASSERT_EQ(rest.size(), 252u);
  EXPECT_FALSE(FqdnPattern::parse("a*" + rest));
  EXPECT_TRUE(FqdnPattern::parse("a*" + rest.substr(0, 1) + rest.substr(2)));
}

TEST(FqdnPattern, StarInsideALabelStaysInThatLabel) {
  const auto p = pattern("md-*.blob.storage.azure.net");
  EXPECT_EQ(p.kind(), FqdnPattern::Kind::InLabel);
  EXPECT_TRUE(p.matches("md-abc.blob.storage.azure.net"));
  EXPECT_TRUE(p.matches("md-.blob.storage.azure.net"));  // zero characters
  EXPECT_FALSE(p.matches("md-a.b.blob.storage.azure.net"));
  EXPECT_FALSE(p.matches("xmd-a.blob.storage.azure.net"));
  EXPECT_FALSE(p.matches("blob.storage.azure.net"));
  const auto middle = pattern("a*z.x*.contoso.com");
  EXPECT_TRUE(middle.matches("az.x.contoso.com"));
  EXPECT_TRUE(middle.matches("abz.xy.contoso.com"));
  EXPECT_FALSE(middle.matches("a.x.contoso.com"));  // prefix and suffix do not share bytes
}

TEST(FqdnPattern, RefusesLookAlikes) {
  EXPECT_THAT(error_of("*contoso.com"),
              testing::AllOf(HasSubstr("evilcontoso.com"), HasSubstr("\"*.contoso.com\"")));
  EXPECT_THAT(error_of("contoso*.com"), HasSubstr("anyone may register"));
  EXPECT_THAT(error_of("*contoso.co.uk"), HasSubstr("anyone may register"));
  EXPECT_THAT(error_of("a.contoso.c*"), HasSubstr("anyone may register"));
  EXPECT_THAT(error_of("*com"), HasSubstr("anyone may register"));
  EXPECT_TRUE(FqdnPattern::parse("*-api.contoso.com"));  // inside contoso.com: its owner's
}

TEST(FqdnPattern, RefusesEverythingAndPublicSuffixes) {
  EXPECT_THAT(error_of("*"), HasSubstr("every name"));
  EXPECT_THAT(error_of("*."), HasSubstr("every name"));
  EXPECT_THAT(error_of("*.com"), HasSubstr("registers under .com"));
  EXPECT_THAT(error_of("*.co.uk"), HasSubstr("registers under .co.uk"));
  EXPECT_THAT(error_of("*.newtldnobodyknows"), HasSubstr("anyone registers"));
  EXPECT_TRUE(FqdnPattern::parse("*.internal"));  // no registry sells these
  EXPECT_TRUE(FqdnPattern::parse("*.cluster.local"));
}

TEST(FqdnPattern, RefusesMisplacedStars) {
  EXPECT_THAT(error_of("a.*.contoso.com"), HasSubstr("only in front"));
  EXPECT_THAT(error_of("*.*.contoso.com"), HasSubstr("one of them only"));
  EXPECT_THAT(error_of("*.a*.contoso.com"), HasSubstr("one of them only"));
  EXPECT_THAT(error_of("a**.contoso.com"), HasSubstr("more than one '*'"));
  EXPECT_THAT(error_of("a*b*.contoso.com"), HasSubstr("more than one '*'"));
  EXPECT_THAT(error_of("bü*.contoso.com"), HasSubstr("no A-label form"));
}

TEST(FqdnPattern, SaysWhatToWriteInstead) {
  EXPECT_THAT(error_of("https://ml.azure.com/x?y"), HasSubstr("'ml.azure.com'"));
  EXPECT_THAT(error_of("ml.azure.com:8443"),
              testing::AllOf(HasSubstr("write 'ml.azure.com'"), HasSubstr("8443 under 'ports'")));
  EXPECT_THAT(error_of("10.0.0.1"), HasSubstr("'addresses'"));
  EXPECT_THAT(error_of("2001:db8::1"), HasSubstr("'addresses'"));
  EXPECT_THAT(error_of("10.1.2.3/8"), HasSubstr("'addresses'"));
  EXPECT_THAT(error_of("<storage>.blob.core.windows.net"), HasSubstr("'<storage>'"));
}

TEST(FqdnPattern, HoldsTheLimitsOfDns) {
  const std::string label63(63, 'a');
  EXPECT_TRUE(FqdnPattern::parse("*." + label63 + ".com"));
  EXPECT_FALSE(FqdnPattern::parse("*." + label63 + "a.com"));
  const std::string domain251 = repeat(label63 + ".", 3) + std::string(59, 'b');
  EXPECT_FALSE(FqdnPattern::parse("*." + domain251 + "b"));
  // Refused as a whole top-level domain has nothing to do with it: four labels.
  EXPECT_TRUE(FqdnPattern::parse("*." + domain251));
  EXPECT_TRUE(FqdnPattern::parse(std::string(62, 'a') + "*.contoso.com"));
  EXPECT_FALSE(FqdnPattern::parse(label63 + "*.contoso.com"));
}

TEST(FqdnPattern, ConvertsInternationalizedDomains) {
  EXPECT_EQ(pattern("*.Bücher.example").text(), "*.xn--bcher-kva.example");
  EXPECT_EQ(pattern("a*.bücher.example").text(), "a*.xn--bcher-kva.example");
}

TEST(FqdnPattern, NamesSharedPlatforms) {
  EXPECT_EQ(pattern("*.blob.core.windows.net").shared_platform(), "blob.core.windows.net");
  EXPECT_EQ(pattern("umsa*.blob.core.windows.net").shared_platform(), "blob.core.windows.net");
  EXPECT_EQ(pattern("*.azurewebsites.net").shared_platform(), "azurewebsites.net");
  EXPECT_EQ(pattern("*.azurecr.io").shared_platform(), "azurecr.io");
  EXPECT_EQ(pattern("*.hcp.eastus.azmk8s.io").shared_platform(), "hcp.eastus.azmk8s.io");
  EXPECT_EQ(pattern("*.eastus.batch.azure.com").shared_platform(), "eastus.batch.azure.com");
  EXPECT_EQ(pattern("*.instances.azureml.ms").shared_platform(), "instances.azureml.ms");
  EXPECT_EQ(pattern("*.pythonhosted.org").shared_platform(), "pythonhosted.org");
  // What is further down is reached as well, but not by a `*` inside a label.
  EXPECT_EQ(pattern("*.azureml.net").shared_platform(), "instances.azureml.net");
  EXPECT_EQ(pattern("*.azmk8s.io").shared_platform(), "hcp.*.azmk8s.io");
  EXPECT_EQ(pattern("a*.azureml.net").shared_platform(), "");
  EXPECT_EQ(pattern("*.modelmanagement.azureml.net").shared_platform(), "");
  EXPECT_EQ(pattern("*.mine.hcp.eastus.azmk8s.io").shared_platform(), "");
  EXPECT_EQ(pattern("mine.blob.core.windows.net").shared_platform(), "");
  EXPECT_EQ(pattern("*.contoso.com").shared_platform(), "");
}

// Every name of up to four labels over a small alphabet, against every pattern of a set chosen to
// nest, cross and miss each other.
TEST(FqdnPattern, CoversAndOverlapsAgreeWithMatching) {
  const std::vector<std::string> words = {"a", "b", "ab", "ba", "aab", "abab", "bab"};
  std::vector<std::string> heads = {"",    "a.",   "b.",   "ab.",  "*.", "a*.",
                                    "*b.", "a*b.", "ab*.", "*ba.", "b*."};
  std::vector<FqdnPattern> patterns;
  for (const std::string& first : heads)
    for (const std::string& second : heads) {
      auto p = FqdnPattern::parse(first + second + "a.test");
      if (p) patterns.push_back(*p);
    }
  std::vector<std::string> names = {"a.test"};
  for (std::size_t begin = 0, depth = 0; depth < 3; ++depth) {
    const std::size_t end = names.size();
    for (std::size_t i = begin; i < end; ++i)
      for (const std::string& word : words) names.push_back(word + "." + names[i]);
    begin = end;
  }
  std::vector<std::vector<bool>> matched;
  for (const FqdnPattern& p : patterns) {
    auto& row = matched.emplace_back();
    for (const std::string& name : names) row.push_back(p.matches(name));
  }
  std::size_t covering = 0, crossing = 0, apart = 0;
  for (std::size_t i = 0; i < patterns.size(); ++i)
    for (std::size_t k = 0; k < patterns.size(); ++k) {
      bool inside = true, meet = false;
      for (std::size_t n = 0; n < names.size(); ++n) {
        if (matched[k][n] && !matched[i][n]) inside = false;
        if (matched[k][n] && matched[i][n]) meet = true;
      }
      const std::string both = patterns[i].text() + " and " + patterns[k].text();
      const bool covers = patterns[i].covers(patterns[k]);
      const bool overlaps = patterns[i].overlaps(patterns[k]);
      if (covers) {
        EXPECT_TRUE(inside) << both;
      }
      if (meet) {
        EXPECT_TRUE(overlaps) << both;
      }
      if (covers) {
        EXPECT_TRUE(overlaps) << both;
      }
      EXPECT_EQ(overlaps, patterns[k].overlaps(patterns[i])) << both;
      // Complete without in-label wildcards on the covering side, given names of every depth.
      if (patterns[i].kind() != FqdnPattern::Kind::InLabel && inside) {
        EXPECT_TRUE(covers) << both;
      }
      covering += covers;
      crossing += overlaps && !covers;
      apart += !overlaps;
    }
  // The set has all three relations, or the loop above proved nothing.
  EXPECT_GT(covering, 100u);
  EXPECT_GT(crossing, 100u);
  EXPECT_GT(apart, 100u);
}

}  // namespace
}  // namespace egressd::policy
