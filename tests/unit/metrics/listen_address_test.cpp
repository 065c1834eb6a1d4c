#include "metrics/listen_address.h"

#include <gtest/gtest.h>

namespace egressd::metrics {
namespace {

TEST(ListenAddress, BothFamilies) {
  const auto four = ListenAddress::parse("127.0.0.1:9477");
  ASSERT_TRUE(four);
  EXPECT_EQ(four->port, 9477);
  EXPECT_EQ(four->to_string(), "127.0.0.1:9477");
  const auto six = ListenAddress::parse("[::1]:80");
  ASSERT_TRUE(six);
  EXPECT_TRUE(six->address.is_loopback());
  EXPECT_EQ(six->to_string(), "[::1]:80");
}

TEST(ListenAddress, NothingElse) {
  for (const char* text : {"", ":", "9477", "127.0.0.1", "127.0.0.1:", ":9477", "localhost:9477",
                           "127.0.0.1:65536", "127.0.0.1:-1", "127.0.0.1:1x", "::1:9477",
                           "[127.0.0.1]:9477", "[::1]", "[::1]9477", "127.0.0.1:1,0.0.0.0:2"}) {
    const auto parsed = ListenAddress::parse(text);
    ASSERT_FALSE(parsed) << text;
    EXPECT_NE(parsed.error().message.find("write 127.0.0.1:9477"), std::string::npos);
  }
}

}  // namespace
}  // namespace egressd::metrics
