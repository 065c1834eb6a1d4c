#include "dns/reply.h"

#include <netinet/in.h>

#include <algorithm>
#include <cstring>
#include <optional>
#include <unordered_map>
#include <unordered_set>

namespace egressd::dns {
namespace {

constexpr std::size_t kHeaderSize = 12;
constexpr std::uint16_t kClassIn = 1;
constexpr std::uint16_t kTypeCname = 5;
constexpr std::size_t kMaxNameBytes = 255;  // RFC 1035 2.3.4, with length bytes
// Azure's longest chains have 6; resolvers give up between 8 and 20.
constexpr std::size_t kMaxChain = 16;

// Reads a message from front to back. The first error sticks and every later read yields zero,
// so that callers check once.
class Reader {
 public:
  explicit Reader(std::span<const std::uint8_t> message) : message_(message) {}

  [[nodiscard]] bool ok() const { return ok_; }
  [[nodiscard]] std::size_t position() const { return position_; }
  void fail() { ok_ = false; }

  std::uint16_t u16() {
    const auto b = bytes(2);
    return ok_ ? static_cast<std::uint16_t>(b[0] << 8 | b[1]) : std::uint16_t{0};
  }
  std::uint32_t u32() {
    const std::uint32_t high = u16();
    return high << 16 | u16();
  }
  std::span<const std::uint8_t> bytes(std::size_t count) {
    if (!ok_ || count > message_.size() - position_) {
      ok_ = false;
      return {};
    }
    const auto result = message_.subspan(position_, count);
    position_ += count;
    return result;
  }
  void seek(std::size_t position) {
    if (position > message_.size()) ok_ = false;
    if (ok_) position_ = position;
  }

  // A possibly compressed name as canonical text. Bytes that are not printable, and the dot and
  // backslash inside a label, become \DDD (RFC 1035 5.1), so that no label can pass for two.
  std::string name() {
    std::string text;
    std::size_t wire_bytes = 1;
    std::optional<std::size_t> resume;
    std::size_t lowest = position_;  // pointers must lead backwards, hence no loops
    while (ok_) {
      const auto head = bytes(1);
      if (!ok_) break;
      const std::uint8_t length = head[0];
      if (length == 0) break;
      if ((length & 0xc0) == 0xc0) {
        const auto low = bytes(1);
        if (!ok_) break;
        const std::size_t target = static_cast<std::size_t>((length & 0x3f) << 8 | low[0]);
        if (!resume) resume = position_;
        if (target >= lowest) {
          fail();
          break;
        }
        lowest = target;
        seek(target);
        continue;
      }
      wire_bytes += length + std::size_t{1};
      if ((length & 0xc0) != 0 || wire_bytes > kMaxNameBytes) {
        fail();
        break;
      }
      if (!text.empty()) text += '.';
      for (const std::uint8_t c : bytes(length)) append(text, c);
    }
    if (resume) seek(*resume);
    return ok_ ? text : std::string();
  }

 private:
  static void append(std::string& text, std::uint8_t c) {
    if (c >= 'A' && c <= 'Z') {
      text += static_cast<char>(c - 'A' + 'a');
    } else if (c > ' ' && c < 0x7f && c != '.' && c != '\\') {
      text += static_cast<char>(c);
    } else {
      text += '\\';
      text += static_cast<char>('0' + c / 100);
      text += static_cast<char>('0' + c / 10 % 10);
      text += static_cast<char>('0' + c % 10);
    }
  }

  std::span<const std::uint8_t> message_;
  std::size_t position_ = 0;
  bool ok_ = true;
};

struct Alias {
  std::string target;
  std::uint32_t ttl;
};

struct AddressRecord {
  std::string owner;
  net::IpAddress address;
  std::uint32_t ttl;
};

net::IpAddress address_from(std::span<const std::uint8_t> data) {
  if (data.size() == sizeof(in_addr)) {
    in_addr a{};
    std::memcpy(&a, data.data(), sizeof(a));
    return net::IpAddress::from(a);
  }
  in6_addr a{};
  std::memcpy(&a, data.data(), sizeof(a));
  return net::IpAddress::from(a);
}

}  // namespace

std::string_view to_string(RecordType type) { return type == RecordType::A ? "A" : "AAAA"; }

std::expected<Question, std::string> parse_question(std::span<const std::uint8_t> message) {
  Reader reader(message);
  reader.seek(4);
  if (reader.u16() == 0) return std::unexpected("no question");
  reader.seek(kHeaderSize);
  Question question;
  question.name = reader.name();
  question.type = reader.u16();
  if (!reader.ok()) return std::unexpected("the question is cut off or malformed");
  return question;
}

std::expected<Reply, std::string> parse_reply(std::span<const std::uint8_t> message,
                                              std::string_view name, RecordType type) {
  if (message.size() < kHeaderSize) return std::unexpected("message shorter than its header");
  Reader reader(message);
  reader.u16();  // the id has been matched by whoever sent the query
  const std::uint16_t flags = reader.u16();
  const std::uint16_t questions = reader.u16();
  const std::uint16_t answers = reader.u16();
  reader.seek(kHeaderSize);
  if ((flags & 0x8000) == 0) return std::unexpected("a query, not an answer");
  if (answers > kMaxAnswerRecords)
    return std::unexpected("more than " + std::to_string(kMaxAnswerRecords) + " records");
  if (questions != 1) return std::unexpected("not exactly one question");
  const std::string asked = reader.name();
  const std::uint16_t asked_type = reader.u16();
  const std::uint16_t asked_class = reader.u16();
  if (!reader.ok()) return std::unexpected("malformed question");
  if (asked != name || asked_type != static_cast<std::uint16_t>(type) || asked_class != kClassIn)
    return std::unexpected("answer to another question");

  std::unordered_map<std::string, Alias> aliases;
  std::vector<AddressRecord> records;
  const std::size_t address_size = type == RecordType::A ? sizeof(in_addr) : sizeof(in6_addr);
  for (std::uint16_t i = 0; i < answers && reader.ok(); ++i) {
    std::string owner = reader.name();
    const std::uint16_t record_type = reader.u16();
    const std::uint16_t record_class = reader.u16();
    std::uint32_t ttl = reader.u32();
    if (ttl > 0x7fffffff) ttl = 0;  // RFC 2181 8
    const std::uint16_t size = reader.u16();
    const std::size_t data_at = reader.position();
    const auto data = reader.bytes(size);
    if (!reader.ok()) break;
    if (record_class != kClassIn) continue;
    if (record_type == kTypeCname) {
      reader.seek(data_at);
      std::string target = reader.name();
      if (reader.position() != data_at + size) reader.fail();
      aliases.try_emplace(std::move(owner), std::move(target), ttl);
    } else if (record_type == static_cast<std::uint16_t>(type)) {
      if (data.size() != address_size) {
        reader.fail();
        continue;
      }
      const net::IpAddress address = address_from(data);
      // An IPv4 address in disguise: what the kernel does not learn from an AAAA is not used here.
      if (type == RecordType::Aaaa && address.is_v4()) continue;
      records.push_back({std::move(owner), address, ttl});
    }
  }
  if (!reader.ok()) return std::unexpected("malformed answer record");

  Reply reply;
  reply.ttl = 0x7fffffff;
  std::string end(name);
  for (auto it = aliases.find(end); it != aliases.end(); it = aliases.find(end)) {
    if (reply.cname_chain.size() == kMaxChain)
      return std::unexpected("CNAME chain endless or longer than " + std::to_string(kMaxChain));
    end = it->second.target;
    reply.ttl = std::min(reply.ttl, it->second.ttl);
    reply.cname_chain.push_back(end);
  }
  std::unordered_set<net::IpAddress> known;
  for (const AddressRecord& record : records) {
    if (record.owner != end) continue;
    reply.ttl = std::min(reply.ttl, record.ttl);
    if (known.insert(record.address).second) reply.addresses.push_back(record.address);
  }
  if (reply.addresses.size() > kMaxAnswerAddresses)
    return std::unexpected("more than " + std::to_string(kMaxAnswerAddresses) + " addresses");
  if (reply.addresses.empty()) reply.ttl = 0;
  return reply;
}

}  // namespace egressd::dns
