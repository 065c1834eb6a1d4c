#include "cli/doctor_command.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <ostream>

#include "audit/record.h"

namespace egressd::cli {

int doctor(const doctor::Options& options, bool json, Streams io) {
  using audit::printable;
  using doctor::State;
  using nlohmann::ordered_json;
  const auto findings = doctor::examine(options);
  auto worst = State::Ok;
  ordered_json checks = ordered_json::array();
  for (const doctor::Finding& finding : findings) {
    worst = std::max(worst, finding.state);
    if (json) {
      ordered_json j{{"check", finding.check},
                     {"state", doctor::to_string(finding.state)},
                     {"what", finding.what}};
      if (!finding.advice.empty()) j["advice"] = finding.advice;
      checks.push_back(std::move(j));
      continue;
    }
    std::string state = doctor::to_string(finding.state);
    state.resize(10, ' ');
    io.out << state << printable(finding.check) << ": " << printable(finding.what);
    if (!finding.advice.empty()) io.out << " \u2192 " << printable(finding.advice);
    io.out << '\n';
  }
  if (json)
    io.out << ordered_json{{"state", doctor::to_string(worst)}, {"checks", std::move(checks)}}.dump(
                  -1, ' ', true, ordered_json::error_handler_t::replace)
           << '\n';
  return worst == State::Ok ? kOk : worst == State::Degraded ? kDenied : kFailed;
}

}  // namespace egressd::cli
