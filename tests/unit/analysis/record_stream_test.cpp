#include "analysis/record_stream.h"

#include <sstream>

#include "records.h"

namespace egressd::analysis {
namespace {

struct Read {
  StreamStats stats;
  std::vector<std::string> destinations;
  std::uint64_t lost = 0;
  bool ok = false;
};

Read read(const std::string& text) {
  Read out;
  std::istringstream in(text);
  out.ok = read_records(
      in, out.stats,
      {.record = [&](const auto& r) { out.destinations.push_back(r.destination.to_string()); },
       .gap = [&](std::uint64_t n) { out.lost += n; }});
  return out;
}

TEST(ReadRecords, RecordsGapsAndOthers) {
  const auto line = connection("203.0.113.1", 443).to_json();
  const auto got = read(line +
                        "\n{\"schema\":1,\"event\":\"gap\",\"count\":7}\n{\"event\":\"trial_"
                        "started\"}\n\nnot a record\r\n{}\n[]\n" +
                        line);
  EXPECT_TRUE(got.ok);
  EXPECT_EQ(got.stats.records, 2u);
  EXPECT_EQ(got.stats.bad, 3u);
  EXPECT_EQ(got.stats.gaps, 1u);
  EXPECT_EQ(got.stats.lost, 7u);
  EXPECT_EQ(got.lost, 7u);
}

// Blocks are read, lines are meant: every line must come through at every place in a block.
TEST(ReadRecords, LinesAcrossBlocks) {
  const auto line = connection("203.0.113.1", 443, {"a.example.com"}).to_json() + "\n";
  std::string text;
  for (int i = 0; i < 3000; ++i) text += line;
  const auto got = read(text);
  EXPECT_EQ(got.stats.records, 3000u);
  EXPECT_EQ(got.stats.bad, 0u);
}

TEST(ReadRecords, ALineWithoutEndIsNotKept) {
  const auto line = connection("203.0.113.1", 443).to_json();
  const auto got = read(std::string(3 * kMaxLineBytes, 'x') + "\n" + line + "\n" +
                        std::string(kMaxLineBytes + 1, ' '));
  EXPECT_EQ(got.stats.records, 1u);
  EXPECT_EQ(got.stats.bad, 2u);
}

TEST(ReadRecords, ALineOfTheLimitIsRead) {
  const auto line = connection("203.0.113.1", 443).to_json();
  const auto got = read(line + std::string(kMaxLineBytes - line.size(), ' ') + "\n");
  EXPECT_EQ(got.stats.records, 1u);
}

TEST(ReadRecords, AbsurdNumbersStopAtTheEnd) {
  const auto got = read(
      "{\"event\":\"gap\",\"count\":18446744073709551615}\n{\"event\":\"gap\",\"count\":"
      "18446744073709551615}\n");
  EXPECT_EQ(got.stats.lost, 18446744073709551615u);
  EXPECT_EQ(got.stats.gaps, 2u);
}

TEST(ReadRecords, TimesThatDoNotFitAreNoRecords) {
  auto line = connection("203.0.113.1", 443).to_json();
  line.replace(line.find("2026"), 4, "9999");
  EXPECT_EQ(read(line).stats.bad, 1u);
}

}  // namespace
}  // namespace egressd::analysis
