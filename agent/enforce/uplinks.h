#pragma once

#include <istream>
#include <set>
#include <string>

namespace egressd::enforce {

// The interfaces default routes lead to. `routes` is /proc/net/route, `routes6`
// /proc/net/ipv6_route (the main table, of the reader's network namespace).
std::set<std::string> uplinks_in(std::istream& routes, std::istream& routes6);
// Of this network namespace.
std::set<std::string> find_uplinks();

}  // namespace egressd::enforce
