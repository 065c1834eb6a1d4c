#include <gmock/gmock.h>
#include <stdlib.h>
#include <unistd.h>

#include <fstream>

#include "dns/resolver.h"

namespace egressd::dns {
namespace {

using namespace std::string_literals;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

class ReadResolvConf : public testing::Test {
 protected:
  ReadResolvConf() {
    char path[] = "/tmp/egressd-resolv-XXXXXX";
    const UniqueFd fd(::mkstemp(path));
    path_ = path;
  }
  ~ReadResolvConf() override { ::unlink(path_.c_str()); }

  Result<ResolvConf> read(const std::string& text) {
    std::ofstream(path_, std::ios::binary) << text;
    return read_resolv_conf(path_);
  }
  std::vector<std::string> servers(const std::string& text) {
    const auto conf = read(text);
    std::vector<std::string> result;
    if (!conf) return {conf.error().message};
    for (const auto& address : conf->servers) result.push_back(address.to_string());
    return result;
  }
  std::vector<std::string> search(const std::string& text) {
    const auto conf = read(text);
    return conf ? conf->search : std::vector<std::string>{conf.error().message};
  }

  std::string path_;
};

TEST_F(ReadResolvConf, NameserversOfBothFamiliesInOrder) {
  EXPECT_THAT(servers("nameserver 10.0.0.10\nnameserver\t2001:db8::53\n"),
              ElementsAre("10.0.0.10", "2001:db8::53"));
}

TEST_F(ReadResolvConf, NoMoreThanThreeServers) {
  EXPECT_THAT(servers("nameserver 192.0.2.1\nnameserver 192.0.2.2\nnameserver 192.0.2.3\n"
                      "nameserver 192.0.2.4\n"),
              ElementsAre("192.0.2.1", "192.0.2.2", "192.0.2.3"));
}

TEST_F(ReadResolvConf, UnparsableServersTakeNoPlace) {
  EXPECT_THAT(servers("nameserver fe80::1%eth0\nnameserver\nnameserver dns.example\n"
                      "nameserver 10.0.0\nnameserver 192.0.2.1:53\nnameserver 192.0.2.1\n"),
              ElementsAre("192.0.2.1"));
}

TEST_F(ReadResolvConf, CommentsAndCrLfAreIgnored) {
  EXPECT_THAT(servers("# nameserver 192.0.2.1\r\n; nameserver 192.0.2.2\r\n"
                      "nameserver 192.0.2.3 # the good one\r\nnameserver 192.0.2.4;x\r\n"),
              ElementsAre("192.0.2.3", "192.0.2.4"));
}

TEST_F(ReadResolvConf, KeywordsCountInTheFirstColumnOnly) {
  EXPECT_THAT(servers(" nameserver 192.0.2.1\nnameservers 192.0.2.2\nNAMESERVER 192.0.2.3\n"),
              IsEmpty());
}

TEST_F(ReadResolvConf, LastLineNeedsNoNewline) {
  EXPECT_THAT(servers("options ndots:5 timeout:1\nnameserver 192.0.2.1"), ElementsAre("192.0.2.1"));
}

TEST_F(ReadResolvConf, LastSearchOrDomainLineWins) {
  EXPECT_THAT(search("domain first.example\nsearch NS.svc.cluster.local svc.cluster.local. .\n"),
              ElementsAre("ns.svc.cluster.local", "svc.cluster.local"));
  EXPECT_THAT(search("search a.example b.example\ndomain last.example ignored.example\n"),
              ElementsAre("last.example"));
}

TEST_F(ReadResolvConf, BinaryRubbishYieldsNothing) {
  const auto conf = read("nameserver 192.0.2.1\0\n\xff\xfe nameserver\n"s);
  ASSERT_TRUE(conf);
  EXPECT_THAT(conf->servers, IsEmpty());
  EXPECT_THAT(conf->search, IsEmpty());
}

TEST_F(ReadResolvConf, EmptyFileIsNoError) { EXPECT_THAT(servers(""), IsEmpty()); }

TEST_F(ReadResolvConf, MoreThan64KibIsRefused) {
  const std::string line = "nameserver 192.0.2.1\n";
  ASSERT_TRUE(read(line + std::string(65536 - line.size(), '#')));
  const auto conf = read(line + std::string(65537 - line.size(), '#'));
  ASSERT_FALSE(conf);
  EXPECT_THAT(conf.error().message, HasSubstr("larger than 64 KiB"));
}

TEST_F(ReadResolvConf, MissingFileAndDirectoryAreErrorsWithTheirPath) {
  const auto missing = read_resolv_conf(path_ + ".absent");
  ASSERT_FALSE(missing);
  EXPECT_EQ(missing.error().code, ENOENT);
  EXPECT_THAT(missing.error().message, HasSubstr(path_));
  const auto directory = read_resolv_conf("/tmp");
  ASSERT_FALSE(directory);
  EXPECT_EQ(directory.error().code, EISDIR);
}

}  // namespace
}  // namespace egressd::dns
