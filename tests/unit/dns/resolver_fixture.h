#pragma once

#include <gmock/gmock.h>

#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/event_loop.h"
#include "dns/resolver.h"

namespace egressd::dns {

inline net::IpAddress ip(std::string_view text) { return *net::IpAddress::parse(text); }

inline std::vector<std::string> texts(const Answer& answer) {
  std::vector<std::string> result;
  for (const auto& address : answer.addresses) result.push_back(address.to_string());
  return result;
}

// A loop, a resolver and everything it has reported.
class ResolverFixture : public testing::Test {
 protected:
  ResolverFixture() : loop_(std::move(*EventLoop::create())) {
    options_.timeout = std::chrono::milliseconds(200);
    options_.tries = 2;
    options_.min_ttl = std::chrono::seconds(1);
    options_.max_backoff = std::chrono::seconds(1);
  }

  void create() {
    auto resolver = Resolver::create(
        *loop_, options_,
        [this](const Answer& answer) {
          answers_[answer.fqdn].push_back(answer);
          if (hook_) hook_();
        },
        [this](const std::string& fqdn, const std::string& error) {
          failures_[fqdn].push_back(error);
          if (hook_) hook_();
        });
    ASSERT_TRUE(resolver) << resolver.error().message;
    resolver_ = std::move(*resolver);
  }

  // Runs the loop until `done` or the limit; false at the limit.
  bool run_until(const std::function<bool()>& done,
                 std::chrono::milliseconds limit = std::chrono::seconds(20)) {
    const auto end = std::chrono::steady_clock::now() + limit;
    while (!done()) {
      if (std::chrono::steady_clock::now() > end) return false;
      if (!loop_->run_once(std::chrono::milliseconds(20))) return false;
    }
    return true;
  }
  void run_for(std::chrono::milliseconds span) {
    run_until([] { return false; }, span);
  }
  bool heard_of(const std::string& fqdn) {
    return run_until([&] { return answers_.contains(fqdn) || failures_.contains(fqdn); });
  }
  Resolver::NameStatus status_of(const std::string& fqdn) {
    for (auto& status : resolver_->status())
      if (status.fqdn == fqdn) return status;
    ADD_FAILURE() << fqdn << " is not on the list";
    return {};
  }

  std::unique_ptr<EventLoop> loop_;
  Resolver::Options options_;
  std::map<std::string, std::vector<Answer>> answers_;
  std::map<std::string, std::vector<std::string>> failures_;
  std::function<void()> hook_;  // after each callback has been noted
  std::unique_ptr<Resolver> resolver_;
};

}  // namespace egressd::dns
