#include "dns/forwarder.h"

#include <array>
#include <set>

#include "forwarder_fixture.h"

// The other side does as it is told: lying, silent, slow. With real servers: forwarder_server_test.

namespace egressd::dns {
namespace {

using std::chrono::milliseconds;
using testing::ElementsAre;
using testing::IsEmpty;
using testing::Not;
using testing::SizeIs;
using How = Forwarder::Finished::How;

std::vector<Message> one_address(const Message& asked, bool) { return {with_addresses(asked, 1)}; }

TEST_F(ForwarderFixture, AnAllowedNameIsAskedAndItsAddressesAreLearned) {
  PuppetServer server(*loop_, one_address);
  create({server.port()});
  const Message reply = ask(question(0x1234, "Www.eXample.test"));
  ASSERT_THAT(reply, Not(IsEmpty()));
  EXPECT_EQ(id_of(reply), 0x1234);
  EXPECT_EQ(answers_in(reply), 1);
  ASSERT_THAT(learned_, SizeIs(1));
  EXPECT_EQ(learned_[0].fqdn, "www.example.test");
  EXPECT_THAT(learned_[0].addresses, ElementsAre(ip("203.0.113.1")));
  EXPECT_EQ(learned_[0].ttl, std::chrono::seconds(30));
  EXPECT_EQ(learned_[0].source, Answer::Source::Proxy);
  // The letters are the client's, there and back.
  EXPECT_EQ(std::string(server.asked[0].begin() + 13, server.asked[0].begin() + 16), "Www");
  EXPECT_EQ(std::string(reply.begin() + 17, reply.begin() + 24), "eXample");
  EXPECT_EQ(finished_.at(0).how, How::Answered);
}

TEST_F(ForwarderFixture, EachQuestionHasItsOwnIdAndSourcePort) {
  PuppetServer server(*loop_, one_address);
  create({server.port()});
  std::set<std::uint16_t> ids, ports;
  for (std::uint16_t i = 0; i < 16; ++i) ask(question(7, "n" + std::to_string(i) + ".test"));
  for (const Message& m : server.asked) ids.insert(id_of(m));
  ports.insert(server.asked_from.begin(), server.asked_from.end());
  EXPECT_GT(ids.size(), 12u);
  EXPECT_GT(ports.size(), 12u);
}

TEST_F(ForwarderFixture, AnotherNameIsRefusedAtOnceAndNotAsked) {
  PuppetServer server(*loop_, one_address);
  create({server.port()});
  const Message reply = ask(question(1, "www.bad.test"));
  ASSERT_THAT(reply, Not(IsEmpty()));
  EXPECT_EQ(reply[3] & 15, 5);
  EXPECT_EQ(reply.size(), question(1, "www.bad.test").size());
  const Message with_edns = ask(question(1, "www.bad.test", 1, 1232));
  ASSERT_GT(with_edns.size(), 6u);
  // EDE "Prohibited" (18) is the last thing in it.
  EXPECT_EQ(Message(with_edns.end() - 6, with_edns.end()), (Message{0, 15, 0, 2, 0, 18}));
  EXPECT_THAT(server.asked, IsEmpty());
  EXPECT_EQ(forwarder_->counters().refused, 2u);
  EXPECT_EQ(finished_.at(0).how, How::Refused);
}

TEST_F(ForwarderFixture, WhatIsNoQuestionGetsFormerrOrNothing) {
  PuppetServer server(*loop_, one_address);
  create({server.port()});
  const Message good = question(9, "a.test");
  const auto changed = [&](auto change) {
    Message m = good;
    change(m);
    return m;
  };
  const std::vector<Message> formerr = {
      changed([](Message& m) { m[5] = 2; }),                 // two questions
      changed([](Message& m) { m[5] = 0; }),                 // none
      changed([](Message& m) { m[7] = 1; }),                 // an answer
      changed([](Message& m) { m[9] = 1; }),                 // an authority
      changed([](Message& m) { m[11] = 1; }),                // an additional that is not there
      changed([](Message& m) { m[12] = 0xc0, m[13] = 4; }),  // a name that points into the header
      changed([](Message& m) { m[12] = 64; }),               // a label too long
      changed([](Message& m) { m.pop_back(); }),
      changed([](Message& m) { m.push_back(0); }),
      DnsMessage().header(9, 0x0100, 1, 0, 0, 1).question("a.test").name("x.test").a(1, 1).bytes(),
  };
  for (const Message& m : formerr) {
    const Message reply = ask(m);
    ASSERT_THAT(reply, SizeIs(12));
    EXPECT_EQ(reply[3] & 15, 1);
  }
  const Message notify = ask(changed([](Message& m) { m[2] = 0x20; }));
  ASSERT_THAT(notify, SizeIs(12));
  EXPECT_EQ(notify[3] & 15, 4);
  // An answer to nothing could begin an endless talk; less than a header has no id to answer to.
  const TestSocket client = udp_client();
  client.send(changed([](Message& m) { m[2] |= 0x80; }));
  client.send(Message(11, 0));
  client.send(question(10, "b.test"));
  EXPECT_EQ(id_of(receive(client)), 10);
  EXPECT_THAT(server.asked, SizeIs(1));
  EXPECT_EQ(forwarder_->counters().malformed, formerr.size() + 3);
}

TEST_F(ForwarderFixture, OptionsOfTheClientDoNotLeave) {
  PuppetServer server(*loop_, one_address);
  create({server.port()});
  DnsMessage m;
  m.header(3, 0x0100, 1, 0, 0, 1).question("a.test");
  m.u8(0).u16(41).u16(4096).u32(0x8000).u16(8).u16(65001).u16(4).u32(0xfeedbeef);
  ASSERT_THAT(ask(m.bytes()), Not(IsEmpty()));
  Message expected = question(id_of(server.asked.at(0)), "a.test", 1, 1232);
  expected[expected.size() - 4] = 0x80;  // DO stays
  EXPECT_EQ(server.asked[0], expected);
}

TEST_F(ForwarderFixture, AnAnswerIsHeldUntilItIsAcknowledged) {
  PuppetServer server(*loop_, one_address);
  hold_ = true;
  create({server.port()});
  const TestSocket client = udp_client();
  client.send(question(5, "a.test"));
  ASSERT_TRUE(run_until([&] { return held_.size() == 1; }));
  EXPECT_THAT(receive(client, milliseconds(50)), IsEmpty());
  held_[0]({});
  const Message reply = receive(client);
  ASSERT_THAT(reply, Not(IsEmpty()));
  EXPECT_EQ(answers_in(reply), 1);
  held_[0](std::unexpected(Error::of("too late")));  // does nothing any more
}

TEST_F(ForwarderFixture, WhatCannotBeLearnedIsServfailAndNeverTheAnswer) {
  PuppetServer server(*loop_, one_address);
  hold_ = true;
  create({server.port()});
  const TestSocket client = udp_client();
  client.send(question(5, "a.test"));
  ASSERT_TRUE(run_until([&] { return held_.size() == 1; }));
  held_[0](std::unexpected(Error::of("full")));
  const Message reply = receive(client);
  ASSERT_THAT(reply, Not(IsEmpty()));
  EXPECT_EQ(reply[3] & 15, 2);
  EXPECT_EQ(answers_in(reply), 0);
  EXPECT_EQ(forwarder_->counters().not_learned, 1u);
  // Nor if nobody says anything.
  client.send(question(6, "b.test"));
  const Message late = receive(client);
  ASSERT_THAT(late, Not(IsEmpty()));
  EXPECT_EQ(late[3] & 15, 2);
  held_[1]({});
  EXPECT_THAT(receive(client, milliseconds(30)), IsEmpty());
  EXPECT_EQ(finished_.back().how, How::NotLearned);
}

TEST_F(ForwarderFixture, AnAcknowledgementMayComeWhenTheForwarderIsGone) {
  PuppetServer server(*loop_, one_address);
  hold_ = true;
  create({server.port()});
  const TestSocket client = udp_client();
  client.send(question(5, "a.test"));
  ASSERT_TRUE(run_until([&] { return held_.size() == 1; }));
  forwarder_.reset();
  held_[0]({});
  run_for(milliseconds(10));
}

TEST_F(ForwarderFixture, AnswersToSomethingElseAreNotBelieved) {
  PuppetServer server(*loop_, [](const Message& asked, bool) {
    Message other_id = with_addresses(asked, 1, 0x01010101);
    other_id[0] ^= 1;
    Message other_name = with_addresses(asked, 1, 0x02020202);
    other_name[13] ^= 1;
    Message other_type = with_addresses(asked, 1, 0x03030303);
    other_type[12 + 8 + 1] = 28;
    Message no_answer = with_addresses(asked, 1, 0x04040404);
    no_answer[2] &= 0x7f;
    return std::vector<Message>{other_id, other_name, other_type, no_answer,
                                with_addresses(asked, 1)};
  });
  create({server.port()});
  ASSERT_THAT(ask(question(5, "a.test")), Not(IsEmpty()));
  ASSERT_THAT(learned_, SizeIs(1));
  EXPECT_THAT(learned_[0].addresses, ElementsAre(ip("203.0.113.1")));
}

TEST_F(ForwarderFixture, AMalformedAnswerIsServfail) {
  PuppetServer server(*loop_, [](const Message& asked, bool) {
    Message m = with_addresses(asked, 2);
    m.pop_back();
    return std::vector<Message>{m};
  });
  create({server.port()});
  const Message reply = ask(question(5, "a.test"));
  ASSERT_THAT(reply, Not(IsEmpty()));
  EXPECT_EQ(reply[3] & 15, 2);
  EXPECT_THAT(learned_, IsEmpty());
  EXPECT_EQ(forwarder_->counters().bad_answer, 1u);
}

TEST_F(ForwarderFixture, AnAnswerOfTooManyAddressesIsServfail) {
  int count = 1024;
  PuppetServer server(*loop_, [&](const Message& asked, bool) {
    return std::vector<Message>{with_addresses(asked, count)};
  });
  create({server.port()});
  for (const int more : {0, 1}) {
    count = 1024 + more;
    const TestSocket client = tcp_client();
    client.send(framed(question(1, "a.test")));
    const auto got = receive_stream(client, 1);
    ASSERT_THAT(got, SizeIs(1));
    EXPECT_EQ(got[0][3] & 15, more == 0 ? 0 : 2);
    EXPECT_EQ(answers_in(got[0]), more == 0 ? 1024 : 0);
  }
  ASSERT_THAT(learned_, SizeIs(1));
  EXPECT_THAT(learned_[0].addresses, SizeIs(1024));
}

TEST_F(ForwarderFixture, FailuresOfTheServerArePassedOn) {
  std::uint16_t rcode = 3;
  PuppetServer server(*loop_, [&](const Message& asked, bool) {
    return std::vector<Message>{answer_to(asked, static_cast<std::uint16_t>(0x8180 | rcode))};
  });
  create({server.port()});
  for (const std::uint16_t each : std::array<std::uint16_t, 4>{3, 2, 5, 4}) {
    rcode = each;
    const Message reply = ask(question(each, "a.test"));
    ASSERT_THAT(reply, Not(IsEmpty()));
    EXPECT_EQ(reply[3] & 15, each);
  }
  EXPECT_THAT(learned_, IsEmpty());
}

TEST_F(ForwarderFixture, ASilentServerIsFollowedByTheNextAndForAWhileSooner) {
  options_.timeout = milliseconds(800);
  options_.deadline = milliseconds(3000);
  PuppetServer silent(*loop_, [](const Message&, bool) { return std::vector<Message>(); });
  PuppetServer good(*loop_, one_address);
  create({silent.port(), good.port()});
  EXPECT_EQ(answers_in(ask(question(1, "a.test"))), 1);
  const auto began = std::chrono::steady_clock::now();
  EXPECT_EQ(answers_in(ask(question(2, "b.test"))), 1);
  EXPECT_LT(std::chrono::steady_clock::now() - began, milliseconds(700));
  EXPECT_THAT(silent.asked, SizeIs(2));
  EXPECT_THAT(good.asked, SizeIs(2));
}

TEST_F(ForwarderFixture, WhatOnlyTheServerMeantKnowsIsFoundAfterItKeptSilent) {
  options_.timeout = milliseconds(600);
  options_.deadline = milliseconds(3000);
  PuppetServer inside(*loop_, [](const Message& asked, bool) {
    if (asked[13] == 's') return std::vector<Message>();
    return std::vector<Message>{with_addresses(asked, 1)};
  });
  PuppetServer outside(*loop_, [](const Message& asked, bool) {
    return std::vector<Message>{answer_to(asked, 0x8183)};
  });
  create({inside.port(), outside.port()});
  EXPECT_EQ(ask(question(1, "slow.test"))[3] & 15, 3);
  EXPECT_EQ(answers_in(ask(question(2, "a.test"))), 1);
  // While the one meant has not had its time, that there is nothing is not believed of another.
  const auto began = std::chrono::steady_clock::now();
  EXPECT_EQ(ask(question(3, "slow.test"))[3] & 15, 3);
  EXPECT_EQ(ask(question(4, "slow.test"))[3] & 15, 3);
  EXPECT_GT(std::chrono::steady_clock::now() - began, milliseconds(1100));
  EXPECT_LT(std::chrono::steady_clock::now() - began, milliseconds(1600));
}

TEST_F(ForwarderFixture, WhoGuessesIdsIsNotBelievedWhenRightAtLast) {
  PuppetServer server(*loop_, [](const Message& asked, bool tcp) {
    std::vector<Message> answers;
    for (std::uint8_t i = 1; i < 40 && !tcp; ++i) {
      answers.push_back(with_addresses(asked, 1, 0x01010101));
      answers.back()[0] ^= i;
    }
    answers.push_back(with_addresses(asked, 1, tcp ? 0xcb007101 : 0x01010101));
    return answers;
  });
  create({server.port()});
  ASSERT_THAT(ask(question(5, "a.test")), Not(IsEmpty()));
  ASSERT_THAT(learned_, SizeIs(1));
  EXPECT_THAT(learned_[0].addresses, ElementsAre(ip("203.0.113.1")));
  // Nor with the next question.
  ASSERT_THAT(ask(question(6, "b.test")), Not(IsEmpty()));
  ASSERT_THAT(learned_, SizeIs(2));
  EXPECT_THAT(learned_[1].addresses, ElementsAre(ip("203.0.113.1")));
  EXPECT_THAT(server.asked, SizeIs(3));
}

TEST_F(ForwarderFixture, WithoutAnyAnswerTheClientGetsServfailInTime) {
  PuppetServer silent(*loop_, [](const Message&, bool) { return std::vector<Message>(); });
  create({silent.port()});
  const auto began = std::chrono::steady_clock::now();
  const Message reply = ask(question(1, "a.test", 1, 1232));
  ASSERT_THAT(reply, Not(IsEmpty()));
  EXPECT_EQ(reply[3] & 15, 2);
  EXPECT_THAT(silent.asked, SizeIs(2));  // once more, should a packet have been lost
  EXPECT_LT(std::chrono::steady_clock::now() - began, milliseconds(900));
}

TEST_F(ForwarderFixture, AServerOnThisMachineIsAskedOnlyByWhoMeansIt) {
  PuppetServer dead(*loop_, [](const Message&, bool) { return std::vector<Message>(); });
  PuppetServer stub(*loop_, one_address);
  options_.servers = {{ip("127.0.0.1"), dead.port(), false}, {ip("127.0.0.1"), stub.port(), true}};
  create({});
  EXPECT_EQ(ask(question(1, "a.test"))[3] & 15, 2);
  EXPECT_THAT(stub.asked, IsEmpty());
  const TestSocket client(SOCK_DGRAM, 0, forwarder_->ports()[1].udp);
  client.send(question(1, "a.test"));
  EXPECT_EQ(answers_in(receive(client)), 1);
}

TEST_F(ForwarderFixture, ATruncatedAnswerComesWithoutAddressesAndTeachesNothing) {
  PuppetServer server(*loop_, [](const Message& asked, bool tcp) {
    Message m = with_addresses(asked, tcp ? 4000 : 3);
    if (!tcp) m[2] |= 2;
    return std::vector<Message>{m};
  });
  create({server.port()});
  const Message reply = ask(question(5, "a.test"));
  ASSERT_THAT(reply, Not(IsEmpty()));
  EXPECT_EQ(reply[2] & 2, 2);
  EXPECT_EQ(answers_in(reply), 0);
  EXPECT_THAT(learned_, IsEmpty());
  // By TCP it is as large as a message can be; of another type, as of addresses it would be too
  // many.
  const TestSocket client = tcp_client();
  client.send(framed(question(6, "a.test", 16)));
  const auto got = receive_stream(client, 1);
  ASSERT_THAT(got, SizeIs(1));
  EXPECT_EQ(id_of(got[0]), 6);
  EXPECT_EQ(answers_in(got[0]), 4000);
  EXPECT_GT(got[0].size(), 60000u);
}

TEST_F(ForwarderFixture, AnAnswerTooLargeForTheClientIsTruncated) {
  PuppetServer server(*loop_, [](const Message& asked, bool) {
    return std::vector<Message>{with_addresses(asked, 40)};
  });
  create({server.port()});
  EXPECT_EQ(answers_in(ask(question(5, "a.test"))), 0);
  EXPECT_EQ(answers_in(ask(question(6, "b.test", 1, 1232))), 40);
}

TEST_F(ForwarderFixture, QuestionsOnOneConnectionAreAnsweredInAnyOrder) {
  PuppetServer server(*loop_, one_address);
  hold_ = true;
  create({server.port()});
  const TestSocket client = tcp_client();
  Message both = framed(question(1, "a.test"));
  const Message second = framed(question(2, "b.test"));
  both.insert(both.end(), second.begin(), second.end());
  // Not cut where messages end.
  client.send(Message(both.begin(), both.begin() + 1));
  run_for(milliseconds(5));
  client.send(Message(both.begin() + 1, both.begin() + 25));
  run_for(milliseconds(5));
  client.send(Message(both.begin() + 25, both.end()));
  ASSERT_TRUE(run_until([&] { return held_.size() == 2; }));
  const std::size_t of_b = learned_[0].fqdn == "b.test" ? 0 : 1;
  held_[of_b]({});
  run_for(milliseconds(20));
  held_[1 - of_b]({});
  const auto got = receive_stream(client, 2);
  ASSERT_THAT(got, SizeIs(2));
  EXPECT_EQ(id_of(got[0]), 2);
  EXPECT_EQ(id_of(got[1]), 1);
}

TEST_F(ForwarderFixture, AConnectionEndsWhenIdleOrBroken) {
  PuppetServer server(*loop_, one_address);
  options_.idle = milliseconds(80);
  create({server.port()});
  const TestSocket idle = tcp_client();
  const TestSocket slow = tcp_client();
  for (int i = 0; i < 40 && ::send(slow.fd.get(), "\1", 1, MSG_NOSIGNAL) == 1; ++i)
    run_for(milliseconds(5));  // bytes that never make a question
  std::array<char, 16> in;
  EXPECT_EQ(::recv(idle.fd.get(), in.data(), in.size(), 0), 0);
  const TestSocket rubbish = tcp_client();
  rubbish.send(framed(Message(3, 0xff)));
  EXPECT_THAT(receive_stream(rubbish, 1), IsEmpty());
  // One that asks and then says it is done gets its answer.
  const TestSocket polite = tcp_client();
  polite.send(framed(question(4, "a.test")));
  ::shutdown(polite.fd.get(), SHUT_WR);
  EXPECT_THAT(receive_stream(polite, 1), SizeIs(1));
  EXPECT_THAT(receive_stream(polite, 1), IsEmpty());
}

TEST_F(ForwarderFixture, WhoAsksWithoutReadingIsNotReadEither) {
  PuppetServer server(*loop_, [](const Message& asked, bool) {
    return std::vector<Message>{with_addresses(asked, 3000)};
  });
  options_.max_unsent = 100000;
  options_.max_questions_of_connection = 4;
  create({server.port()});
  const TestSocket client = tcp_client();
  const int small = 65536;
  ::setsockopt(client.fd.get(), SOL_SOCKET, SO_RCVBUF, &small, sizeof(small));
  Message many;
  for (std::uint16_t i = 0; i < 2000; ++i) {
    const Message one = framed(question(i, "a.test", 16));
    many.insert(many.end(), one.begin(), one.end());
  }
  ::send(client.fd.get(), many.data(), many.size(), MSG_NOSIGNAL);
  ASSERT_TRUE(run_until([&] { return server.asked.size() > 3; }));
  run_for(milliseconds(300));
  // Socket buffers take a few megabytes; the rest has not been asked.
  EXPECT_LT(server.asked.size(), 400u);
  const std::size_t before = server.asked.size();
  EXPECT_THAT(receive_stream(client, before + 20), SizeIs(testing::Ge(before + 20)));
}

TEST_F(ForwarderFixture, TheSameQuestionAskedAgainIsOneQuestion) {
  PuppetServer server(*loop_, one_address);
  hold_ = true;
  create({server.port()});
  const TestSocket client = udp_client();
  for (int i = 0; i < 5; ++i) client.send(question(5, "a.test"));
  ASSERT_TRUE(run_until([&] { return held_.size() == 1; }));
  run_for(milliseconds(30));
  EXPECT_THAT(server.asked, SizeIs(1));
  EXPECT_EQ(forwarder_->counters().repeated, 4u);
}

TEST_F(ForwarderFixture, AFloodFromOneClientLeavesRoomForOthers) {
  PuppetServer server(*loop_, [](const Message& asked, bool) {
    // Nobody knows what the flood asks for.
    return asked[12] == 5 ? std::vector<Message>() : one_address(asked, false);
  });
  options_.timeout = options_.deadline = std::chrono::seconds(4);
  options_.max_questions = 64;
  options_.max_questions_of_client = 16;
  create({server.port()});
  const TestSocket flood = udp_client("127.0.0.2");
  for (std::uint16_t i = 0; i < 500; ++i)
    flood.send(question(i, "fl" + std::to_string(100 + i) + ".test"));
  run_for(milliseconds(50));
  EXPECT_EQ(forwarder_->under_way(), 16u);
  EXPECT_EQ(forwarder_->counters().dropped_client, 484u);
  for (std::uint16_t i = 0; i < 40; ++i)
    ASSERT_EQ(answers_in(ask(question(i, "a" + std::to_string(i) + ".test"))), 1);
  // All clients together have a bound, too.
  for (int c = 3; c < 9; ++c) {
    const TestSocket more = udp_client(("127.0.0." + std::to_string(c)).c_str());
    for (std::uint16_t i = 0; i < 16; ++i) more.send(question(i, "fl" + std::to_string(100 + i)));
    run_for(milliseconds(5));
  }
  EXPECT_EQ(forwarder_->under_way(), 64u);
  EXPECT_GT(forwarder_->counters().dropped, 0u);
}

TEST_F(ForwarderFixture, ConnectionsAreBounded) {
  PuppetServer server(*loop_, one_address);
  options_.max_connections = 8;
  options_.max_connections_of_client = 4;
  create({server.port()});
  std::deque<TestSocket> kept;
  for (int i = 0; i < 6; ++i) kept.push_back(tcp_client());
  EXPECT_EQ(forwarder_->counters().connections, 4u);
  EXPECT_EQ(forwarder_->counters().connections_refused, 2u);
  kept.clear();
  run_for(milliseconds(20));
  const TestSocket again = tcp_client();
  again.send(framed(question(1, "a.test")));
  EXPECT_THAT(receive_stream(again, 1), SizeIs(1));
}

TEST_F(ForwarderFixture, NothingIsLeftUnderWay) {
  PuppetServer server(*loop_, one_address);
  create({server.port()});
  for (std::uint16_t i = 0; i < 20; ++i) ask(question(i, i % 3 == 0 ? "x.bad.test" : "a.test"));
  EXPECT_EQ(forwarder_->under_way(), 0u);
  EXPECT_THAT(finished_, SizeIs(20));
}

}  // namespace
}  // namespace egressd::dns
