#include "audit/syslog_sink.h"

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>

namespace egressd::audit {
namespace {

using testing::HasSubstr;
using testing::StartsWith;

// A UDP socket of this machine's. tests/netns/syslog_test.sh has a real rsyslogd.
class SyslogSinkTest : public testing::Test {
 protected:
  void SetUp() override {
    fd.reset(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    sockaddr_in at{};
    at.sin_family = AF_INET;
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    ASSERT_EQ(::bind(fd.get(), reinterpret_cast<sockaddr*>(&at), sizeof(at)), 0);
    socklen_t size = sizeof(at);
    ASSERT_EQ(::getsockname(fd.get(), reinterpret_cast<sockaddr*>(&at), &size), 0);
    port = ntohs(at.sin_port);
  }
  std::string next() {
    std::array<char, 65536> buffer{};
    const auto n = ::recv(fd.get(), buffer.data(), buffer.size(), MSG_DONTWAIT);
    return {buffer.data(), static_cast<std::size_t>(std::max<ssize_t>(n, 0))};
  }
  std::unique_ptr<SyslogSink> open(std::string host = "host1") {
    auto sink = SyslogSink::open("127.0.0.1:" + std::to_string(port),
                                 {.host_name = std::move(host), .now = [this] { return now; }});
    EXPECT_TRUE(sink) << sink.error().message;
    return std::move(*sink);
  }

  UniqueFd fd;
  std::uint16_t port = 0;
  std::chrono::steady_clock::time_point now;
};

TEST_F(SyslogSinkTest, HeaderIsOfRfc5424AndTheTextIsTheLine) {
  Record r;
  ASSERT_TRUE(open()->write(r));
  const auto pid = std::to_string(::getpid());
  EXPECT_EQ(next(),
            "<28>1 1970-01-01T00:00:00.000000Z host1 egressd " + pid + " denied - " + r.to_json());
  r.denied = false;
  ASSERT_TRUE(open("")->write(r));
  EXPECT_THAT(next(),
              StartsWith("<29>1 1970-01-01T00:00:00.000000Z - egressd " + pid + " would_deny - {"));
  ASSERT_TRUE(open("a b\n")->write(Notice::gap({}, 3, "kernel")));
  EXPECT_THAT(next(), HasSubstr("Z ab egressd " + pid + " gap - {\"schema\":1,\"event\":\"gap\""));
}

TEST_F(SyslogSinkTest, RefusalOfItsOwnDatagramIsNotSent) {
  const auto sink = open();
  Record r;
  r.pid = static_cast<std::uint32_t>(::getpid());
  r.destination = *net::IpAddress::parse("127.0.0.1");
  r.port = port;
  ASSERT_TRUE(sink->write(r));
  EXPECT_EQ(next(), "");
  ++r.pid;
  ASSERT_TRUE(sink->write(r));
  EXPECT_NE(next(), "");
}

TEST_F(SyslogSinkTest, AfterAFailureOverUdpItWaitsBeforeTheNext) {
  const auto sink = open();
  Record r;
  r.comm = std::string(70000, 'x');  // longer than a datagram
  const auto first = sink->write(r);
  ASSERT_FALSE(first);
  EXPECT_EQ(first.error().code, EMSGSIZE);
  r.comm = "curl";
  EXPECT_TRUE(sink->write(r));
  EXPECT_EQ(next(), "") << "too soon";
  EXPECT_EQ(sink->lost(), 2u);
  now += SyslogSink::kHoldOff;
  EXPECT_TRUE(sink->write(r));
  EXPECT_THAT(next(), HasSubstr("\"count\":2,\"cause\":\"audit_log\"}"));
  EXPECT_THAT(next(), HasSubstr("\"comm\":\"curl\""));
}

TEST_F(SyslogSinkTest, TargetsAreAddressesOrPaths) {
  for (const char* good : {"unix", "unix:/run/log", "192.0.2.1:514", "[2001:db8::1]:6514"})
    EXPECT_TRUE(SyslogSink::open(good, {})) << good;
  for (const char* bad :
       {"", "log.example:514", "192.0.2.1", "192.0.2.1:", "192.0.2.1:0", "192.0.2.1:65536",
        "192.0.2.1:514x", "2001:db8::1:514", "[192.0.2.1", "[]:514", "unix:"})
    EXPECT_FALSE(SyslogSink::open(bad, {})) << bad;
  EXPECT_THAT(SyslogSink::open("log.example:514", {}).error().message,
              HasSubstr("an address, not a name"));
}

}  // namespace
}  // namespace egressd::audit
