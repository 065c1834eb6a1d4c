#include "audit/event_reader.h"

#include <bpf/bpf.h>
#include <gtest/gtest.h>
#include <linux/bpf.h>
#include <poll.h>

#include <array>
#include <cstring>
#include <vector>

#include "base/unique_fd.h"

namespace egressd::audit {
namespace {

bpf_insn insn(int code, int dst, int src, int off, int imm) {
  bpf_insn i{};
  i.code = static_cast<__u8>(code);
  i.dst_reg = static_cast<__u8>(dst & 15);
  i.src_reg = static_cast<__u8>(src & 15);
  i.off = static_cast<__s16>(off);
  i.imm = imm;
  return i;
}

// The kernel lets only a program produce into a ring buffer: this one copies the first `size`
// bytes of the packet it is test-run on.
class Producer {
 public:
  Producer(int map_fd, int size) {
    constexpr int kSpace = 128;
    const std::vector<bpf_insn> program{
        insn(BPF_ALU64 | BPF_MOV | BPF_X, 6, 1, 0, 0),
        insn(BPF_ALU64 | BPF_MOV | BPF_K, 2, 0, 0, 0),
        insn(BPF_ALU64 | BPF_MOV | BPF_X, 3, 10, 0, 0),
        insn(BPF_ALU64 | BPF_ADD | BPF_K, 3, 0, 0, -kSpace),
        insn(BPF_ALU64 | BPF_MOV | BPF_K, 4, 0, 0, size),
        insn(BPF_JMP | BPF_CALL, 0, 0, 0, BPF_FUNC_skb_load_bytes),
        insn(BPF_JMP | BPF_JNE | BPF_K, 0, 0, 7, 0),
        insn(BPF_LD | BPF_DW | BPF_IMM, 1, BPF_PSEUDO_MAP_FD, 0, map_fd),
        insn(0, 0, 0, 0, 0),
        insn(BPF_ALU64 | BPF_MOV | BPF_X, 2, 10, 0, 0),
        insn(BPF_ALU64 | BPF_ADD | BPF_K, 2, 0, 0, -kSpace),
        insn(BPF_ALU64 | BPF_MOV | BPF_K, 3, 0, 0, size),
        insn(BPF_ALU64 | BPF_MOV | BPF_K, 4, 0, 0, 0),
        insn(BPF_JMP | BPF_CALL, 0, 0, 0, BPF_FUNC_ringbuf_output),
        insn(BPF_JMP | BPF_EXIT, 0, 0, 0, 0),
    };
    fd_.reset(::bpf_prog_load(BPF_PROG_TYPE_SOCKET_FILTER, "egressd_test", "GPL", program.data(),
                              program.size(), nullptr));
  }
  [[nodiscard]] bool loaded() const { return static_cast<bool>(fd_); }
  void produce(const egressd_event& event) {
    std::array<unsigned char, 14 + 128> packet{};
    std::memcpy(packet.data() + 14, &event, sizeof(event));
    LIBBPF_OPTS(bpf_test_run_opts, options, .data_in = packet.data(),
                .data_size_in = static_cast<__u32>(packet.size()), .repeat = 1);
    ASSERT_EQ(::bpf_prog_test_run_opts(fd_.get(), &options), 0) << std::strerror(errno);
    ASSERT_EQ(options.retval, 0u);
  }

 private:
  UniqueFd fd_;
};

class EventReaderTest : public testing::Test {
 protected:
  void SetUp() override {
    map.reset(::bpf_map_create(BPF_MAP_TYPE_RINGBUF, "egressd_test", 0, 0, 1 << 18, nullptr));
    if (!map) GTEST_SKIP() << "cannot create a ring buffer (needs CAP_BPF): " << strerror(errno);
    auto r = EventReader::open(map.get(), [this](const egressd_event& e) { got.push_back(e); });
    ASSERT_TRUE(r) << r.error().message;
    reader = std::move(*r);
  }
  bool readable() const {
    pollfd p{.fd = reader->epoll_fd(), .events = POLLIN, .revents = 0};
    return ::poll(&p, 1, 0) == 1;
  }
  UniqueFd map;
  std::unique_ptr<EventReader> reader;
  std::vector<egressd_event> got;
};

TEST_F(EventReaderTest, HandsOverEveryEventInOrder) {
  Producer producer(map.get(), sizeof(egressd_event));
  ASSERT_TRUE(producer.loaded()) << std::strerror(errno);
  EXPECT_FALSE(readable());
  for (std::uint32_t i = 1; i <= 100; ++i) {
    egressd_event event{};
    event.tgid = i;
    producer.produce(event);
  }
  EXPECT_TRUE(readable());
  const auto n = reader->poll();
  ASSERT_TRUE(n) << n.error().message;
  EXPECT_EQ(*n, 100u);
  ASSERT_EQ(got.size(), 100u);
  for (std::uint32_t i = 0; i < 100; ++i) EXPECT_EQ(got[i].tgid, i + 1);
  EXPECT_FALSE(readable());
  EXPECT_EQ(*reader->poll(), 0u);
}

TEST_F(EventReaderTest, StopsAtTheBoundWithoutLosingOrRepeating) {
  Producer producer(map.get(), sizeof(egressd_event));
  ASSERT_TRUE(producer.loaded()) << std::strerror(errno);
  for (std::uint32_t i = 0; i < 25; ++i) {
    egressd_event event{};
    event.tgid = i;
    producer.produce(event);
  }
  EXPECT_EQ(*reader->poll(0), 0u);
  EXPECT_EQ(*reader->poll(10), 10u);
  EXPECT_TRUE(readable()) << "what is left must wake the loop again";
  EXPECT_EQ(*reader->poll(10), 10u);
  EXPECT_EQ(*reader->poll(10), 5u);
  EXPECT_FALSE(readable());
  for (std::uint32_t i = 0; i < 25; ++i) EXPECT_EQ(got[i].tgid, i);
}

TEST_F(EventReaderTest, EntriesOfAnotherSizeAreCountedNotRead) {
  Producer small(map.get(), sizeof(egressd_event) - 8);
  Producer large(map.get(), sizeof(egressd_event) + 8);
  Producer right(map.get(), sizeof(egressd_event));
  ASSERT_TRUE(small.loaded() && large.loaded() && right.loaded()) << std::strerror(errno);
  small.produce({});
  right.produce({});
  large.produce({});
  ASSERT_TRUE(reader->poll());
  EXPECT_EQ(got.size(), 1u);
  EXPECT_EQ(reader->malformed(), 2u);
}

TEST_F(EventReaderTest, RefusesAMapThatIsNoRingBuffer) {
  const UniqueFd other(::bpf_map_create(BPF_MAP_TYPE_ARRAY, "egressd_test", 4, 4, 1, nullptr));
  ASSERT_TRUE(other);
  EXPECT_FALSE(EventReader::open(other.get(), [](const egressd_event&) {}));
  EXPECT_FALSE(EventReader::open(-1, [](const egressd_event&) {}));
}

}  // namespace
}  // namespace egressd::audit
