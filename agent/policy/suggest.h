#pragma once

#include <span>
#include <string>
#include <string_view>

namespace egressd::policy {

// "; did you mean 'NEAREST'?" if one of `known` is close enough to `word`, else "".
std::string did_you_mean(std::string_view word, std::span<const std::string_view> known);

// `text` in single quotes, cut to a length that suits a message, control bytes shown as \xNN.
std::string quoted(std::string_view text);

}  // namespace egressd::policy
