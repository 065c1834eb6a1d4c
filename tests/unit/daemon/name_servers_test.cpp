#include "daemon/name_servers.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <fstream>

namespace egressd::daemon {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class NameServersTest : public ::testing::Test {
 protected:
  NameServersTest() {
    char dir[] = "/tmp/egressd-servers-XXXXXX";
    dir_ = ::mkdtemp(dir);
    paths_ = {dir_ + "/resolv.conf", dir_ + "/upstream.conf"};
  }
  ~NameServersTest() override { std::filesystem::remove_all(dir_); }

  static std::vector<std::string> addresses(const Result<NameServers>& found) {
    if (!found) return {found.error().message};
    std::vector<std::string> all;
    for (const auto& address : found->dns.addresses) all.push_back(address.to_string());
    return all;
  }
  void conf(const std::string& text) const { std::ofstream(paths_.conf) << text; }
  void upstream(const std::string& text) const { std::ofstream(paths_.upstream) << text; }

  std::string dir_;
  ResolvConfPaths paths_;
  policy::Policy policy_;
};

TEST_F(NameServersTest, ServersOfTheFileAreTrusted) {
  conf("nameserver 10.0.0.53\nsearch corp.example\n");
  upstream("nameserver 192.0.2.66\n");
  const auto found = find_name_servers(policy_, paths_);
  EXPECT_THAT(addresses(found), ElementsAre("10.0.0.53"));
  EXPECT_THAT(found->dns.search_domains, ElementsAre("corp.example"));
  EXPECT_FALSE(found->stub_alone);
}

TEST_F(NameServersTest, BehindAStubItsOwnServersAreTrustedToo) {
  conf("nameserver 127.0.0.53\n");
  upstream("nameserver 127.0.0.53\nnameserver 10.0.0.53\nnameserver 2001:db8::53\n");
  const auto found = find_name_servers(policy_, paths_);
  EXPECT_THAT(addresses(found), ElementsAre("127.0.0.53", "10.0.0.53", "2001:db8::53"));
  EXPECT_FALSE(found->stub_alone);
}

TEST_F(NameServersTest, AServerBesideTheStubMeansTheFileSaysItAll) {
  conf("nameserver 127.0.0.1\nnameserver 10.0.0.53\n");
  upstream("nameserver 192.0.2.66\n");
  EXPECT_THAT(addresses(find_name_servers(policy_, paths_)), ElementsAre("127.0.0.1", "10.0.0.53"));
}

TEST_F(NameServersTest, AStubWhoseServersAreUnknownStandsAlone) {
  conf("nameserver ::1\nnameserver 127.0.0.53\n");
  EXPECT_TRUE(find_name_servers(policy_, paths_)->stub_alone);
  upstream("nameserver 127.0.0.53\n");
  EXPECT_TRUE(find_name_servers(policy_, paths_)->stub_alone);
  policy_.dns.servers = {*net::IpAddress::parse("127.0.0.53")};
  EXPECT_FALSE(find_name_servers(policy_, paths_)->stub_alone) << "the policy says it all";
}

TEST_F(NameServersTest, ThePolicyComesFirstAndNeedsNoFile) {
  policy_.dns.servers = {*net::IpAddress::parse("10.0.0.1")};
  EXPECT_THAT(addresses(find_name_servers(policy_, paths_)), ElementsAre("10.0.0.1"));
  conf("nameserver 10.0.0.53\nsearch corp.example\n");
  const auto found = find_name_servers(policy_, paths_);
  EXPECT_THAT(addresses(found), ElementsAre("10.0.0.1"));
  EXPECT_THAT(found->dns.search_domains, ElementsAre("corp.example"));
}

TEST_F(NameServersTest, WithoutAnyServerTheErrorSaysWhatToWrite) {
  EXPECT_THAT(find_name_servers(policy_, paths_).error().message, HasSubstr("resolv.conf"));
  conf("search corp.example\n");
  EXPECT_THAT(find_name_servers(policy_, paths_).error().message, HasSubstr("dns: {servers: ["));
}

}  // namespace
}  // namespace egressd::daemon
