#pragma once

#include <iosfwd>
#include <string>

namespace CLI {  // NOLINT(readability-identifier-naming): not ours to name
class App;
}

namespace egressd::cli {

// Writes a completion script for "bash", "zsh" or "fish", made from the commands and options `app`
// has, so that it knows exactly those. False for another shell.
bool write_completion(const CLI::App& app, const std::string& shell, std::ostream& out);

}  // namespace egressd::cli
