#include "policy/idna.h"

#include <idn2.h>

namespace egressd::policy {

std::expected<std::string, std::string> to_a_labels(std::string_view name) {
  if (name.find('\0') != std::string_view::npos) return std::unexpected("contains a NUL byte");
  const std::string input(name);
  char* output = nullptr;
  const int rc = idn2_to_ascii_8z(
      input.c_str(), &output, IDN2_NFC_INPUT | IDN2_NONTRANSITIONAL | IDN2_USE_STD3_ASCII_RULES);
  if (rc != IDN2_OK) return std::unexpected(idn2_strerror(rc));
  std::string result(output);
  idn2_free(output);
  return result;
}

}  // namespace egressd::policy
