#include "audit/gap.h"

#include <nlohmann/json.hpp>

#include "audit/record.h"

namespace egressd::audit {

std::string Gap::to_json() const {
  nlohmann::ordered_json j;
  j["schema"] = Record::kSchema;
  j["event"] = "gap";
  j["time"] = format_time(time);
  j["count"] = count;
  j["cause"] = cause;
  return j.dump(-1, ' ', true, nlohmann::json::error_handler_t::replace);
}

}  // namespace egressd::audit
