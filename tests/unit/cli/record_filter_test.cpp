#include "cli/record_filter.h"

#include <gmock/gmock.h>

namespace egressd::cli {
namespace {

using testing::HasSubstr;

audit::Record record() {
  audit::Record r;
  r.reason = "port_not_allowed";
  r.hook = "connect";
  r.destination = *net::IpAddress::parse("192.0.2.7");
  r.port = 443;
  r.fqdns = {"api.example.com", "other.example.net"};
  r.cname_chain = {"edge.cdn.example"};
  r.collection = "web";
  r.rule = "python";
  r.pid = 4711;
  r.comm = "curl";
  r.cgroup = "/system.slice/app.service";
  r.pod_uid = "0f3a7c1e-1111-2222-3333-444455556666";
  return r;
}

TEST(RecordFilter, WithoutValuesEverythingMatches) {
  EXPECT_TRUE(RecordFilter{}.matches(record()));
  EXPECT_TRUE(RecordFilter{}.matches({}));
}

TEST(RecordFilter, VerdictsAreEitherWithBothFlags) {
  auto denied = record();
  auto would = record();
  would.denied = false;
  EXPECT_TRUE(RecordFilter{.denied = true}.matches(denied));
  EXPECT_FALSE(RecordFilter{.denied = true}.matches(would));
  EXPECT_FALSE(RecordFilter{.would_deny = true}.matches(denied));
  EXPECT_TRUE(RecordFilter{.would_deny = true}.matches(would));
  const RecordFilter both{.denied = true, .would_deny = true};
  EXPECT_TRUE(both.matches(denied));
  EXPECT_TRUE(both.matches(would));
}

TEST(RecordFilter, ValuesOfOneKindAreAlternatives) {
  EXPECT_TRUE((RecordFilter{.reasons = {"expired", "port_not_allowed"}}.matches(record())));
  EXPECT_FALSE((RecordFilter{.reasons = {"expired", "default_deny"}}.matches(record())));
  EXPECT_TRUE((RecordFilter{.pids = {1, 4711}}.matches(record())));
  EXPECT_FALSE((RecordFilter{.pids = {1, 2}}.matches(record())));
}

TEST(RecordFilter, KindsMustAllMatch) {
  EXPECT_TRUE((RecordFilter{.comms = {"curl"}, .ports = {{443, 443}}}.matches(record())));
  EXPECT_FALSE((RecordFilter{.comms = {"curl"}, .ports = {{80, 80}}}.matches(record())));
  EXPECT_FALSE((RecordFilter{.comms = {"wget"}, .ports = {{443, 443}}}.matches(record())));
}

TEST(RecordFilter, NamesAreGlobsWithoutCaseAndAlsoOfTheChain) {
  for (const char* glob : {"api.example.com", "API.Example.COM", "*.example.com", "*.example.*",
                           "other*", "edge.cdn.example", "api.exampl?.com"})
    EXPECT_TRUE(RecordFilter{.fqdns = {glob}}.matches(record())) << glob;
  for (const char* glob : {"example.com", "*.example.org", "api", "*.api.example.com"})
    EXPECT_FALSE(RecordFilter{.fqdns = {glob}}.matches(record())) << glob;
  EXPECT_FALSE(RecordFilter{.fqdns = {"*"}}.matches({}));
}

TEST(RecordFilter, DestinationsArePrefixes) {
  const auto matches = [](const char* prefix) {
    return RecordFilter{.destinations = {*net::Prefix::parse(prefix)}}.matches(record());
  };
  EXPECT_TRUE(matches("192.0.2.0/24"));
  EXPECT_TRUE(matches("192.0.2.7"));
  EXPECT_FALSE(matches("192.0.2.8/29"));
  EXPECT_FALSE(matches("::/0"));
}

TEST(RecordFilter, PortsAreRanges) {
  EXPECT_TRUE((RecordFilter{.ports = {{1, 443}}}.matches(record())));
  EXPECT_FALSE((RecordFilter{.ports = {{444, 65535}}}.matches(record())));
}

TEST(RecordFilter, WhoItWas) {
  EXPECT_TRUE(RecordFilter{.cgroups = {"*app.service"}}.matches(record()));
  EXPECT_TRUE(RecordFilter{.cgroups = {"/system.slice/*"}}.matches(record()));
  EXPECT_FALSE(RecordFilter{.cgroups = {"app.service"}}.matches(record()));
  EXPECT_TRUE(RecordFilter{.pods = {"0F3A7C1E-1111-2222-3333-444455556666"}}.matches(record()));
  EXPECT_FALSE(RecordFilter{.pods = {"0f3a7c1e"}}.matches(record()));
  EXPECT_FALSE(RecordFilter{.comms = {"*"}}.matches({}));
  EXPECT_FALSE(RecordFilter{.cgroups = {"*"}}.matches({}));
}

TEST(RecordFilter, RulesByNameOrWithTheirCollection) {
  for (const char* rule : {"python", "web/python", "web/*", "py*"})
    EXPECT_TRUE(RecordFilter{.rules = {rule}}.matches(record())) << rule;
  for (const char* rule : {"web", "web/rust", "python/web"})
    EXPECT_FALSE(RecordFilter{.rules = {rule}}.matches(record())) << rule;
  EXPECT_FALSE(RecordFilter{.rules = {"*"}}.matches({})) << "no rule decided";
}

TEST(RecordFilter, PortTexts) {
  EXPECT_EQ(parse_ports("443"), (net::PortRange{443, 443}));
  EXPECT_EQ(parse_ports("0"), (net::PortRange{0, 0}));
  EXPECT_EQ(parse_ports("1-65535"), (net::PortRange{1, 65535}));
  for (const char* text : {"", "-", "1-", "-1", "65536", "9-8", "80,443", "https", " 80", "1-2-3"})
    EXPECT_FALSE(parse_ports(text)) << text;
  EXPECT_THAT(parse_ports("https").error(), HasSubstr("'https' is no port"));
}

TEST(RecordFilter, ProcessTexts) {
  EXPECT_EQ(parse_pid("4294967295"), 4294967295U);
  for (const char* text : {"", "0", "-1", "4294967296", "curl", "1 "})
    EXPECT_FALSE(parse_pid(text)) << text;
}

TEST(RecordFilter, NamesAsDnsWritesThem) {
  EXPECT_EQ(parse_name_glob("api.example.com."), "api.example.com");
  EXPECT_EQ(parse_name_glob("*.b\u00fccher.example"), "*.xn--bcher-kva.example");
  EXPECT_FALSE(parse_name_glob(""));
  EXPECT_FALSE(parse_name_glob("."));
  EXPECT_FALSE(parse_name_glob("\xff.example"));
}

}  // namespace
}  // namespace egressd::cli
