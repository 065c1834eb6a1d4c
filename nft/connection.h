#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/result.h"
#include "nft/batch.h"
#include "nft/values.h"

struct mnl_socket;

namespace egressd::nft {

// A netlink socket to nf_tables of the network namespace it was opened in. The kernel answers
// within the call: nothing here waits for anyone.
class Connection {
 public:
  static Result<std::unique_ptr<Connection>> open(std::string table = kTable);
  ~Connection();
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  // All of it, or nothing and an error that names the element, rule or set that was in the way.
  // code ENOBUFS: the kernel's answer was lost, and whether it was done is not known.
  Result<void> commit(Batch& batch);
  Result<void> commit(Batch&& batch) { return commit(batch); }

  // Of the table: no other has it before the next boot. None if there is no table.
  Result<std::optional<std::uint64_t>> table_handle();
  // Names of its chains and of its sets.
  Result<std::vector<std::string>> chains();
  Result<std::vector<std::string>> sets();

  // Rules in a chain; 0 as well if there is no such chain.
  Result<std::size_t> count_rules(const std::string& chain);

  struct Listed {
    std::span<const std::uint8_t> key;
    std::optional<std::chrono::milliseconds> left;  // until it ends
    std::span<const std::uint8_t> userdata;         // content
  };
  // Valid within `visit` only. Elements may be told twice if somebody changes the set meanwhile.
  Result<void> each_element(const std::string& set,
                            const std::function<void(const Listed&)>& visit);
  Result<std::map<std::string, CounterValue>> counters();

 private:
  struct Free {
    void operator()(mnl_socket* socket) const;
  };
  Connection(mnl_socket* socket, std::string table) : table_(std::move(table)), socket_(socket) {}

  Result<void> make_room(std::size_t bytes);
  Result<void> send(const void* data, std::size_t bytes, const char* what);
  Result<void> dump(std::uint16_t type, const std::function<void(nlmsghdr*)>& fill,
                    const std::function<void(const nlmsghdr*)>& visit, const char* what);
  void forget_answers();

  std::string table_;  // what questions are about
  std::unique_ptr<mnl_socket, Free> socket_;
  std::size_t room_ = 0;  // of the send buffer
  std::vector<char> answers_;
};

}  // namespace egressd::nft
