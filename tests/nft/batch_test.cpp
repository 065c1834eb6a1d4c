// Transactions: all or nothing, and an error says what was in the way. Each test runs in a fresh
// network namespace of this process.
#include <gtest/gtest.h>
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <thread>
#include <vector>

#include "nft/batch.h"
#include "nft/connection.h"

namespace egressd::nft {
namespace {

net::IpAddress v4(std::uint32_t number) { return net::IpAddress::v4(0x0a000000 + number); }

class Transaction : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_EQ(::unshare(CLONE_NEWNET), 0) << "needs root";
    auto opened = Connection::open();
    ASSERT_TRUE(opened) << opened.error().message;
    connection = std::move(*opened);
    Batch batch;
    batch.add_table();
    batch.add_set(set);
    batch.add_chain({"judge"});
    commit(batch);
  }

  void commit(Batch& batch) {
    const auto r = connection->commit(batch);
    ASSERT_TRUE(r) << r.error().message;
  }
  void add(Batch& batch, std::uint32_t number, std::chrono::milliseconds timeout = {}) const {
    const KeyBytes key = KeyBytes::of(v4(number), net::Protocol::Tcp, 443);
    batch.add_element(set, {.key = key.bytes(), .timeout = timeout});
  }
  std::vector<std::string> elements() {
    std::vector<std::string> found;
    const auto r = connection->each_element(set.name, [&](const Connection::Listed& listed) {
      found.push_back(to_string(set.key, listed.key));
    });
    EXPECT_TRUE(r) << r.error().message;
    std::ranges::sort(found);
    return found;
  }

  Set set{.name = "allow4", .key = Key::Flow4, .timeout = true, .size = 1 << 20};
  std::unique_ptr<Connection> connection;
};

TEST_F(Transaction, OneBadElementChangesNothingAndIsNamed) {
  Batch first;
  add(first, 1);
  add(first, 77);
  commit(first);
  const auto before = elements();
  ASSERT_EQ(before.size(), 2u);

  Batch second;
  second.flush_chain("judge");
  second.add_rule("judge", Rule().flow_in(true, "allow4").accept());
  for (std::uint32_t i = 2; i < 5000; ++i) add(second, i);  // 77 is there already
  second.add_chain({"more"});
  const auto r = connection->commit(second);
  ASSERT_FALSE(r);
  EXPECT_EQ(r.error().code, EEXIST);
  EXPECT_NE(r.error().message.find("add to set allow4: element 10.0.0.77 . tcp . 443"),
            std::string::npos)
      << r.error().message;
  EXPECT_EQ(elements(), before);
  EXPECT_EQ(*connection->chains(), std::vector<std::string>{"judge"});

  Batch third;
  for (std::uint32_t i = 2; i < 77; ++i) add(third, i);
  commit(third);
  EXPECT_EQ(elements().size(), 77u);
}

TEST_F(Transaction, WhatIsNotThereCannotBeDeleted) {
  Batch first;
  add(first, 1);
  commit(first);
  Batch second;
  add(second, 2);
  const KeyBytes missing = KeyBytes::of(v4(3), net::Protocol::Udp, 53);
  second.delete_element(set, {.key = missing.bytes()});
  const auto r = connection->commit(second);
  ASSERT_FALSE(r);
  EXPECT_EQ(r.error().code, ENOENT);
  EXPECT_NE(r.error().message.find("delete from set allow4: element 10.0.0.3 . udp . 53"),
            std::string::npos)
      << r.error().message;
  EXPECT_EQ(elements().size(), 1u);
}

TEST_F(Transaction, ABadRuleIsNamedByItsText) {
  Batch batch;
  add(batch, 1);
  batch.add_rule("judge", Rule().address_in(true, false, "nowhere").drop());
  const auto r = connection->commit(batch);
  ASSERT_FALSE(r);
  EXPECT_NE(r.error().message.find("add rule 'ip daddr @nowhere drop' to chain judge"),
            std::string::npos)
      << r.error().message;
  EXPECT_TRUE(elements().empty());
}

TEST_F(Transaction, ALoopOfChainsIsAnErrorOfTheWhole) {
  Batch batch;
  batch.add_chain({"other"});
  batch.add_chain({.name = "output", .hook = Chain::Hook::Output});
  batch.add_rule("output", Rule().go_to("judge"));
  batch.add_rule("judge", Rule().jump("other"));
  batch.add_rule("other", Rule().jump("judge"));
  const auto r = connection->commit(batch);
  ASSERT_FALSE(r);
  EXPECT_TRUE(r.error().code == ELOOP || r.error().code == EMLINK) << r.error().message;
  EXPECT_EQ(*connection->chains(), std::vector<std::string>{"judge"});
}

TEST_F(Transaction, ThousandsOfErrorsAreStillAnError) {
  Batch batch;
  for (int i = 0; i < 20000; ++i) batch.delete_chain("none" + std::to_string(i));
  const auto r = connection->commit(batch);
  ASSERT_FALSE(r);
  EXPECT_TRUE(r.error().code == ENOENT || r.error().code == ENOBUFS) << r.error().message;
  // And the connection goes on.
  Batch next;
  add(next, 1);
  commit(next);
  EXPECT_EQ(elements().size(), 1u);
}

TEST_F(Transaction, AFullSetSaysSo) {
  const Set small{.name = "small", .key = Key::Ipv4, .size = 10};
  Batch batch;
  batch.add_set(small);
  for (std::uint32_t i = 0; i < 11; ++i)
    batch.add_element(small, {.key = KeyBytes::of(v4(i)).bytes()});
  const auto r = connection->commit(batch);
  ASSERT_FALSE(r);
  EXPECT_EQ(r.error().code, ENFILE) << r.error().message;
  EXPECT_NE(r.error().message.find("element 10.0.0.10"), std::string::npos) << r.error().message;
}

TEST_F(Transaction, AHundredThousandElementsAreOneTransaction) {
  Batch batch;
  for (std::uint32_t i = 0; i < 100000; ++i) add(batch, i);
  EXPECT_GT(batch.bytes(), 1u << 20);
  commit(batch);
  EXPECT_EQ(elements().size(), 100000u);
  // Replaced: what is flushed and added again is there all the time.
  Batch again;
  again.flush_set(set);
  for (std::uint32_t i = 50000; i < 150000; ++i) add(again, i);
  commit(again);
  EXPECT_EQ(elements().size(), 100000u);
}

TEST_F(Transaction, ElementsEndAndKeepUserData) {
  using namespace std::chrono_literals;
  const std::vector<std::uint8_t> data{1, 2, 3, 4, 5};
  const Set seen{.name = "seen4", .key = Key::Ipv4, .size = 1000};
  Batch batch;
  batch.add_set(seen);
  batch.add_element(seen, {.key = KeyBytes::of(v4(9)).bytes(), .userdata = data});
  add(batch, 1, 60s);
  add(batch, 2, 100ms);
  commit(batch);
  int told = 0;
  auto r = connection->each_element("seen4", [&](const Connection::Listed& listed) {
    ++told;
    EXPECT_EQ(address_of(Key::Ipv4, listed.key), v4(9));
    EXPECT_TRUE(std::ranges::equal(listed.userdata, data));
    EXPECT_FALSE(listed.left);
  });
  EXPECT_TRUE(r);
  EXPECT_EQ(told, 1);
  for (int i = 0; i < 500 && elements().size() != 1; ++i) std::this_thread::sleep_for(10ms);
  EXPECT_EQ(elements(), std::vector<std::string>{"10.0.0.1 . tcp . 443"});
}

TEST_F(Transaction, CountersAndTheTableAreFound) {
  EXPECT_TRUE(connection->table_handle()->has_value());
  Batch batch;
  batch.add_counter("default_deny");
  commit(batch);
  const auto counters = connection->counters();
  ASSERT_TRUE(counters);
  EXPECT_EQ(counters->size(), 1u);
  EXPECT_TRUE(counters->contains("default_deny"));
  EXPECT_EQ(*connection->sets(), std::vector<std::string>{"allow4"});
  Batch end;
  end.delete_table();
  commit(end);
  EXPECT_FALSE(connection->table_handle()->has_value());
}

}  // namespace
}  // namespace egressd::nft

int main(int argc, char** argv) {
  if (::geteuid() != 0) {
    std::puts("SKIPPED: needs root (network namespaces)");
    return 77;
  }
  ::testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
