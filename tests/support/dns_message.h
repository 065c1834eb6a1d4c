#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace egressd::test {

// Writes DNS messages a byte at a time: well-formed ones as easily as broken ones. Numbers are
// host order. Every method appends and returns the writer.
class DnsMessage {
 public:
  // Counts are what the header claims, whatever follows.
  DnsMessage& header(std::uint16_t id, std::uint16_t flags, std::uint16_t questions,
                     std::uint16_t answers, std::uint16_t authorities = 0,
                     std::uint16_t additionals = 0) {
    return u16(id).u16(flags).u16(questions).u16(answers).u16(authorities).u16(additionals);
  }
  // Uncompressed; "" is the root.
  DnsMessage& name(std::string_view dotted) {
    while (!dotted.empty()) {
      const auto dot = dotted.find('.');
      const auto label = dotted.substr(0, dot);
      u8(static_cast<std::uint8_t>(label.size()));
      bytes_.insert(bytes_.end(), label.begin(), label.end());
      dotted = dot == std::string_view::npos ? std::string_view{} : dotted.substr(dot + 1);
    }
    return u8(0);
  }
  DnsMessage& pointer(std::size_t to) { return u16(static_cast<std::uint16_t>(0xc000 | to)); }
  DnsMessage& question(std::string_view dotted, std::uint16_t type = 1, std::uint16_t klass = 1) {
    return name(dotted).u16(type).u16(klass);
  }
  // What follows an owner name.
  DnsMessage& record(std::uint16_t type, std::uint32_t ttl, std::span<const std::uint8_t> data,
                     std::uint16_t klass = 1) {
    u16(type).u16(klass).u32(ttl).u16(static_cast<std::uint16_t>(data.size()));
    bytes_.insert(bytes_.end(), data.begin(), data.end());
    return *this;
  }
  DnsMessage& a(std::uint32_t ttl, std::uint32_t address) {
    return u16(1).u16(1).u32(ttl).u16(4).u32(address);
  }
  DnsMessage& aaaa(std::uint32_t ttl, std::span<const std::uint8_t> address) {
    return record(28, ttl, address);
  }
  // Uncompressed target; offset of the target's name to *at if given.
  DnsMessage& cname(std::uint32_t ttl, std::string_view target, std::size_t* at = nullptr) {
    u16(5).u16(1).u32(ttl).u16(static_cast<std::uint16_t>(target.size() + 2));
    if (at != nullptr) {
      *at = bytes_.size();
    }
    return name(target);
  }
  DnsMessage& u8(std::uint8_t v) {
    bytes_.push_back(v);
    return *this;
  }
  DnsMessage& u16(std::uint16_t v) {
    return u8(static_cast<std::uint8_t>(v >> 8)).u8(static_cast<std::uint8_t>(v & 0xff));
  }
  DnsMessage& u32(std::uint32_t v) {
    return u16(static_cast<std::uint16_t>(v >> 16)).u16(static_cast<std::uint16_t>(v & 0xffff));
  }
  [[nodiscard]] std::size_t size() const { return bytes_.size(); }
  [[nodiscard]] const std::vector<std::uint8_t>& bytes() const { return bytes_; }
  std::vector<std::uint8_t>& bytes() { return bytes_; }

 private:
  std::vector<std::uint8_t> bytes_;
};

}  // namespace egressd::test
