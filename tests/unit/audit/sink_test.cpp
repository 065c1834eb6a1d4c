#include "audit/sink.h"

#include <gtest/gtest.h>

namespace egressd::audit {
namespace {

struct Account {
  int records = 0;
  int gaps = 0;
  int flushes = 0;
  int reopens = 0;
};

class CountingSink final : public Sink {
 public:
  CountingSink(Account& account, std::string error) : account_(account), error_(std::move(error)) {}
  Result<void> write(const Record&) override { return result(++account_.records); }
  Result<void> write(const Notice&) override { return result(++account_.gaps); }
  void flush() override { ++account_.flushes; }
  Result<void> reopen() override { return result(++account_.reopens); }
  [[nodiscard]] std::uint64_t lost() const override { return error_.empty() ? 0 : 3; }
  [[nodiscard]] std::string name() const override { return error_.empty() ? "good" : "bad"; }

 private:
  Result<void> result(int) const {
    if (error_.empty()) return {};
    return std::unexpected(Error::of(error_));
  }
  Account& account_;
  std::string error_;
};

TEST(FanOutSink, FailureOfOneKeepsNothingFromTheOthers) {
  Account a, b, c;
  std::vector<std::unique_ptr<Sink>> sinks;
  sinks.push_back(std::make_unique<CountingSink>(a, "disk full"));
  sinks.push_back(std::make_unique<CountingSink>(b, ""));
  sinks.push_back(std::make_unique<CountingSink>(c, "no journald"));
  FanOutSink all(std::move(sinks));
  const auto r = all.write(Record{});
  ASSERT_FALSE(r);
  EXPECT_EQ(r.error().message, "disk full; no journald");
  EXPECT_FALSE(all.write(Notice{}));
  EXPECT_FALSE(all.reopen());
  all.flush();
  for (const Account& account : {a, b, c}) {
    EXPECT_EQ(account.records, 1);
    EXPECT_EQ(account.gaps, 1);
    EXPECT_EQ(account.flushes, 1);
    EXPECT_EQ(account.reopens, 1);
  }
  EXPECT_EQ(all.lost(), 6u);
  EXPECT_EQ(all.name(), "bad, good, bad");
}

TEST(Losses, AreReportedOnceAndOneGap) {
  Losses losses;
  EXPECT_FALSE(losses.once(Error::of("full")));
  losses.add();
  EXPECT_TRUE(losses.once(Error::of("full")));
  losses.add(4);
  EXPECT_EQ(losses.gap().count, 5u);
  losses.noted();
  EXPECT_FALSE(losses.pending());
  losses.add();
  EXPECT_EQ(losses.gap().count, 1u);
  EXPECT_EQ(losses.total(), 6u);
}

}  // namespace
}  // namespace egressd::audit
