#pragma once

#include <string>

#include "audit/notice.h"
#include "audit/record.h"

namespace egressd::audit {

// How lines of a log look.
class Format {
 public:
  virtual ~Format() = default;
  // One line without the newline, printable ASCII.
  [[nodiscard]] virtual std::string line(const Record& record) const = 0;
  [[nodiscard]] virtual std::string line(const Notice& notice) const = 0;
};

// Schema 1 of README.md.
class JsonFormat final : public Format {
 public:
  [[nodiscard]] std::string line(const Record& record) const override { return record.to_json(); }
  [[nodiscard]] std::string line(const Notice& notice) const override { return notice.to_json(); }
};

}  // namespace egressd::audit
