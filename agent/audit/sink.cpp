#include "audit/sink.h"

namespace egressd::audit {
namespace {

// Every sink has its turn, whatever became of the others; their errors as one.
template <typename Sinks, typename Do>
Result<void> each(const Sinks& sinks, const Do& todo) {
  Error error;
  for (const auto& sink : sinks) {
    auto r = todo(*sink);
    if (r) continue;
    if (error.message.empty())
      error = std::move(r.error());
    else
      error.message += "; " + r.error().message;
  }
  if (error.message.empty()) return {};
  return std::unexpected(std::move(error));
}

}  // namespace

void Losses::add(std::uint64_t records) {
  if (in_a_row_ == 0) since_ = std::chrono::system_clock::now();
  in_a_row_ += records;
  total_ += records;
}

Result<void> Losses::once(Error error) const {
  if (in_a_row_ > 0) return {};
  return std::unexpected(std::move(error));
}

Result<void> FanOutSink::write(const Record& record) {
  return each(sinks_, [&](Sink& sink) { return sink.write(record); });
}

Result<void> FanOutSink::write(const Notice& notice) {
  return each(sinks_, [&](Sink& sink) { return sink.write(notice); });
}

void FanOutSink::flush() {
  for (const auto& sink : sinks_) sink->flush();
}

Result<void> FanOutSink::reopen() {
  return each(sinks_, [](Sink& sink) { return sink.reopen(); });
}

std::uint64_t FanOutSink::lost() const {
  std::uint64_t sum = 0;
  for (const auto& sink : sinks_) sum += sink->lost();
  return sum;
}

std::string FanOutSink::name() const {
  std::string names;
  for (const auto& sink : sinks_) names += (names.empty() ? "" : ", ") + sink->name();
  return names;
}

}  // namespace egressd::audit
