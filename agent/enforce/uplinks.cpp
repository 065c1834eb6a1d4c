#include "enforce/uplinks.h"

#include <fstream>
#include <sstream>
#include <vector>

namespace egressd::enforce {
namespace {

constexpr std::size_t kColumns = 11;
constexpr std::size_t kMask = 7;
constexpr std::size_t kColumns6 = 10;

bool all_zero(const std::string& hex) {
  return !hex.empty() && hex.find_first_not_of('0') == std::string::npos;
}

template <typename Visit>
void each_line(std::istream& in, std::size_t columns, const Visit& visit) {
  std::vector<std::string> words;
  for (std::string line; std::getline(in, line);) {
    words.clear();
    std::istringstream split(line);
    for (std::string word; split >> word;) words.push_back(word);
    if (words.size() >= columns) visit(words);
  }
}

}  // namespace

std::set<std::string> uplinks_in(std::istream& routes, std::istream& routes6) {
  std::set<std::string> found;
  each_line(routes, kColumns, [&](const std::vector<std::string>& words) {
    if (all_zero(words[1]) && all_zero(words[kMask])) found.insert(words[0]);
  });
  // The last is the interface; "lo" is where what is unreachable is sent.
  each_line(routes6, kColumns6, [&](const std::vector<std::string>& words) {
    if (all_zero(words[0]) && all_zero(words[1]) && words.back() != "lo")
      found.insert(words.back());
  });
  return found;
}

std::set<std::string> find_uplinks() {
  std::ifstream routes("/proc/self/net/route");
  std::ifstream routes6("/proc/self/net/ipv6_route");
  return uplinks_in(routes, routes6);
}

}  // namespace egressd::enforce
