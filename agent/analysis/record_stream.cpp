#include "analysis/record_stream.h"

#include <array>
#include <istream>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "analysis/tally.h"

namespace egressd::analysis {
namespace {

// A line {"schema":1,"event":…}: how many records it says are missing, 0 if it is of another event.
// Nothing if it is no such line.
std::optional<std::uint64_t> missing_in(std::string_view line) {
  const auto j = nlohmann::json::parse(line, nullptr, false);
  if (!j.is_object()) return std::nullopt;
  const auto event = j.find("event");
  if (event == j.end() || !event->is_string()) return std::nullopt;
  if (*event != "gap") return 0;
  const auto count = j.find("count");
  if (count == j.end() || !count->is_number_unsigned()) return std::nullopt;
  return count->get<std::uint64_t>();
}

void visit_line(std::string_view line, StreamStats& stats, const Visitor& visitor) {
  if (line.ends_with('\r')) line.remove_suffix(1);
  if (line.empty()) return;
  if (const auto record = audit::Record::from_json(line)) {
    ++stats.records;
    visitor.record(*record);
  } else if (const auto lost = missing_in(line)) {
    if (*lost == 0) return;
    ++stats.gaps;
    stats.lost = saturating_sum(stats.lost, *lost);
    if (visitor.gap) visitor.gap(*lost);
  } else {
    ++stats.bad;
  }
}

}  // namespace

bool read_records(std::istream& in, StreamStats& stats, const Visitor& visitor) {
  std::array<char, 64 << 10> buffer{};
  std::string begun;  // of a line whose end is in a later block
  bool skipping = false;
  const auto end_line = [&](std::string_view rest) {
    if (skipping || begun.size() + rest.size() > kMaxLineBytes) {
      ++stats.bad;
    } else if (begun.empty()) {
      visit_line(rest, stats, visitor);
    } else {
      begun += rest;
      visit_line(begun, stats, visitor);
    }
    begun.clear();
    skipping = false;
  };
  do {
    in.read(buffer.data(), buffer.size());
    std::string_view block(buffer.data(), static_cast<std::size_t>(in.gcount()));
    for (auto end = block.find('\n'); end != std::string_view::npos; end = block.find('\n')) {
      end_line(block.substr(0, end));
      block.remove_prefix(end + 1);
    }
    if (begun.size() + block.size() > kMaxLineBytes) {
      skipping = true;
      begun.clear();
    }
    if (!skipping) begun += block;
  } while (in);
  if (skipping || !begun.empty()) end_line("");
  return in.eof() && !in.bad();
}

}  // namespace egressd::analysis
