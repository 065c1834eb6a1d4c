#include <optional>

#include "forwarder_fixture.h"
#include "name_servers.h"

// Real name servers on the other side: unbound, which asks knotd.

namespace egressd::dns {
namespace {

using std::chrono::seconds;
using testing::ElementsAre;
using testing::IsEmpty;
using testing::Not;
using testing::SizeIs;

class ForwarderWithServers : public ForwarderFixture {
 protected:
  void SetUp() override {
    if (!KnotServer::is_installed() || !UnboundServer::is_installed())
      GTEST_SKIP() << "knotd or unbound is not installed (Debian packages knot, unbound): no real "
                      "name server to ask";
    options_.timeout = seconds(2);  // the machine may be busy
    options_.deadline = seconds(5);
  }
  void serve(const std::string& records) {
    knot_.emplace(records);
    auto started = knot_->start();
    ASSERT_TRUE(started) << started.error().message;
    unbound_.emplace(knot_->port());
    started = unbound_->start();
    ASSERT_TRUE(started) << started.error().message;
    create({unbound_->port()});
  }
  std::optional<KnotServer> knot_;
  std::optional<UnboundServer> unbound_;
};

TEST_F(ForwarderWithServers, NamesOfAllKindsAreAnsweredAndLearned) {
  serve(
      "plain A 203.0.113.7\nsix AAAA 2001:db8::6\nalias CNAME middle\nmiddle CNAME plain\n"
      "text TXT \"x\"\n");
  EXPECT_EQ(answers_in(ask(question(1, "PLAIN.test"))), 1);
  EXPECT_EQ(answers_in(ask(question(2, "six.test", 28, 1232))), 1);
  EXPECT_EQ(answers_in(ask(question(3, "alias.test"))), 3);
  ASSERT_THAT(learned_, SizeIs(3));
  EXPECT_EQ(learned_[0].fqdn, "plain.test");
  EXPECT_THAT(learned_[1].addresses, ElementsAre(ip("2001:db8::6")));
  EXPECT_THAT(learned_[2].cname_chain, ElementsAre("middle.test", "plain.test"));
  EXPECT_EQ(ask(question(4, "nowhere.test"))[3] & 15, 3);
  const Message no_data = ask(question(5, "plain.test", 28));
  EXPECT_EQ(no_data[3] & 15, 0);
  EXPECT_EQ(answers_in(no_data), 0);
  EXPECT_THAT(learned_, SizeIs(3));
}

TEST_F(ForwarderWithServers, ALargeAnswerComesByTcpAndManyQuestionsOnOneConnection) {
  std::string records;
  for (int i = 0; i < 250; ++i)
    records +=
        "big A 203.0." + std::to_string(113 + i / 250) + "." + std::to_string(i % 250 + 1) + "\n";
  for (int i = 0; i < 50; ++i) records += "n" + std::to_string(i) + " A 198.51.100.1\n";
  serve(records);
  const Message cut = ask(question(1, "big.test", 1, 1232));
  ASSERT_THAT(cut, Not(IsEmpty()));
  EXPECT_EQ(cut[2] & 2, 2);
  EXPECT_THAT(learned_, IsEmpty());
  const TestSocket client = tcp_client();
  Message all = framed(question(100, "big.test"));
  for (std::uint16_t i = 0; i < 50; ++i) {
    const Message one = framed(question(i, "n" + std::to_string(i) + ".test"));
    all.insert(all.end(), one.begin(), one.end());
  }
  client.send(all);
  const auto got = receive_stream(client, 51);
  ASSERT_THAT(got, SizeIs(51));
  for (const Message& m : got) EXPECT_EQ(answers_in(m), id_of(m) == 100 ? 250 : 1);
  EXPECT_THAT(learned_, SizeIs(51));
}

TEST_F(ForwarderWithServers, ADeadServerIsServfailAndItsReturnIsNoticed) {
  options_.timeout = options_.deadline = seconds(1);
  serve("plain A 203.0.113.7\n");
  unbound_->stop();
  EXPECT_EQ(ask(question(1, "plain.test"))[3] & 15, 2);
  const TestSocket client = tcp_client();
  client.send(framed(question(2, "plain.test")));
  const auto got = receive_stream(client, 1);
  ASSERT_THAT(got, SizeIs(1));
  EXPECT_EQ(got[0][3] & 15, 2);
  ASSERT_TRUE(unbound_->start());
  EXPECT_EQ(answers_in(ask(question(3, "plain.test"))), 1);
}

}  // namespace
}  // namespace egressd::dns
