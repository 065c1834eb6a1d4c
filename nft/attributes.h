#pragma once

#include <linux/netfilter/nfnetlink.h>
#include <linux/netlink.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

namespace egressd::nft {

// Walks netlink attributes, as a range: libmnl's own loops are macros that C++ does not take. What
// does not fit into the bytes there are ends the walk.
class Attributes {
 public:
  class Iterator {
   public:
    Iterator(const char* at, std::size_t left) : at_(at), left_(left) {
      if (left_ < sizeof(nlattr) || get()->nla_len < sizeof(nlattr) || get()->nla_len > left_)
        left_ = 0;
    }
    const nlattr& operator*() const { return *get(); }
    Iterator& operator++() {
      const std::size_t step = NLA_ALIGN(get()->nla_len);
      return *this = Iterator(at_ + step, step < left_ ? left_ - step : 0);
    }
    bool operator!=(const Iterator&) const { return left_ != 0; }

   private:
    [[nodiscard]] const nlattr* get() const { return reinterpret_cast<const nlattr*>(at_); }
    const char* at_;
    std::size_t left_;
  };

  Attributes(const void* from, std::size_t bytes)
      : from_(static_cast<const char*>(from)), bytes_(bytes) {}
  // Of a message, behind `skip` bytes of its own header.
  static Attributes of(const nlmsghdr* message, std::size_t skip = sizeof(nfgenmsg)) {
    const std::size_t before = NLMSG_HDRLEN + NLMSG_ALIGN(skip);
    if (message->nlmsg_len < before) return {message, 0};
    return {reinterpret_cast<const char*>(message) + before, message->nlmsg_len - before};
  }
  // Nested ones.
  static Attributes in(const nlattr& outer) {
    return {reinterpret_cast<const char*>(&outer) + NLA_HDRLEN,
            outer.nla_len - std::size_t{NLA_HDRLEN}};
  }

  [[nodiscard]] Iterator begin() const { return {from_, bytes_}; }
  [[nodiscard]] Iterator end() const { return {from_, 0}; }

  // The first of that type, or null.
  [[nodiscard]] const nlattr* find(unsigned type) const;

 private:
  const char* from_;
  std::size_t bytes_;
};

inline unsigned type_of(const nlattr& attribute) { return attribute.nla_type & NLA_TYPE_MASK; }

inline const nlattr* Attributes::find(unsigned type) const {
  for (const nlattr& attribute : *this)
    if (type_of(attribute) == type) return &attribute;
  return nullptr;
}

inline std::span<const std::uint8_t> bytes_of(const nlattr* attribute) {
  if (attribute == nullptr) return {};
  return {reinterpret_cast<const std::uint8_t*>(attribute) + NLA_HDRLEN,
          attribute->nla_len - std::size_t{NLA_HDRLEN}};
}

// An integer as it stands there; 0 if it is too short.
template <typename T>
T number_of(const nlattr& attribute) {
  T value{};
  if (attribute.nla_len >= NLA_HDRLEN + sizeof(T))
    std::memcpy(&value, reinterpret_cast<const char*>(&attribute) + NLA_HDRLEN, sizeof(T));
  return value;
}

}  // namespace egressd::nft
