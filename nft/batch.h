#pragma once

#include <linux/netlink.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "nft/rule.h"
#include "nft/values.h"

namespace egressd::nft {

// Changes to one table that come into force together or not at all: one transaction of the kernel,
// however many there are. Connection::commit() sends them.
//
// Elements that follow each other into one set share messages of up to 60 KB and cost no memory
// but their place in the buffer: a million take 40 MB.
class Batch {
 public:
  explicit Batch(std::string table = kTable);
  ~Batch();
  Batch(Batch&&) noexcept;
  Batch& operator=(Batch&&) noexcept;

  // Adding what is there already is no error, for all but elements, and changes nothing.
  void add_table();
  void delete_table();  // with everything in it
  void add_set(const Set& set);
  void delete_set(const Set& set);
  void flush_set(const Set& set);
  void add_counter(std::string_view name);
  void add_chain(const Chain& chain);
  void delete_chain(std::string_view name);
  void flush_chain(std::string_view name);
  void flush_chains();                                      // all of them
  void add_rule(std::string_view chain, const Rule& rule);  // behind those there

  // An element that is there already: an error (EEXIST), so that none keeps an end that is not
  // meant. One that is not there cannot be deleted (ENOENT).
  void add_element(const Set& set, const Element& element);
  void delete_element(const Set& set, const Element& element);
  // Adds it unless it is there: it can be deleted then, though it may have been about to end.
  void make_sure_of_element(const Set& set, const Element& element);

  [[nodiscard]] bool empty() const { return messages_.empty(); }
  [[nodiscard]] std::size_t bytes() const { return buffer_.size() + open_bytes(); }

 private:
  friend class Connection;

  // For errors: which message did what. Elements are found by their offset in it.
  struct Message {
    std::size_t offset = 0;  // in buffer_
    std::string what;        // "add rule … to chain …", or "add to set NAME" of elements
    bool elements = false;
    Key key = Key::Ipv4;
  };

  nlmsghdr* begin(std::uint16_t type, std::uint16_t flags, std::string what);
  void end();             // of one that begin() gave
  void close_elements();  // the message elements are being added to
  void put_element(std::uint16_t type, std::uint16_t flags, const Set& set, const Element& element);
  [[nodiscard]] std::size_t open_bytes() const;

  // Closes what is open and appends the end; the whole, ready to be sent.
  std::vector<char>& finish();
  // "add to set allow4: element 203.0.113.5 . tcp . 443". `offset` within the message, 0: unknown.
  [[nodiscard]] std::string describe(std::uint32_t sequence, std::uint32_t offset) const;

  std::string table_;
  std::vector<char> buffer_;
  std::vector<char> scratch_;  // the message being made
  std::vector<Message> messages_;
  nlmsghdr* open_ = nullptr;  // in scratch_, elements
  std::uint16_t open_type_ = 0;
  std::string open_set_;
  std::size_t nest_ = 0;  // of the list of elements, in scratch_
  std::uint32_t next_chain_ = 1;
  bool finished_ = false;
};

}  // namespace egressd::nft
