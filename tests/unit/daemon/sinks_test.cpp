#include "daemon/sinks.h"

#include <gmock/gmock.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

namespace egressd::daemon {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

class SinksTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (fs::temp_directory_path() / "egressd-sinks-XXXXXX").string();
    dir = ::mkdtemp(pattern.data());
  }
  void TearDown() override { fs::remove_all(dir); }
  static std::string names(const AuditOptions& options) {
    const auto sinks = open_sinks(options);
    return sinks ? (*sinks)->name() : sinks.error().message;
  }

  fs::path dir;
};

TEST_F(SinksTest, StandardOutputIsForWhoAsksForNothingElse) {
  EXPECT_EQ(names({}), "audit records to standard output");
  EXPECT_EQ(names({.syslog = "192.0.2.1:514"}), "syslog 192.0.2.1:514");
  EXPECT_EQ(names({.log = "-", .syslog = "192.0.2.1:514"}),
            "audit records to standard output, syslog 192.0.2.1:514");
  const auto file = (dir / "log").string();
  EXPECT_EQ(names({.log = file}), file);
}

TEST_F(SinksTest, FormatIsThatOfTheLines) {
  const auto file = (dir / "log").string();
  const auto sinks =
      open_sinks({.log = file, .format = "azfw", .resource_id = "/subscriptions/s/vm"});
  ASSERT_TRUE(sinks) << sinks.error().message;
  ASSERT_TRUE((*sinks)->write(audit::Record{}));
  std::ifstream in(file);
  std::string line;
  std::getline(in, line);
  EXPECT_THAT(line, HasSubstr(R"("Type":"AZFWNetworkRule")"));
  EXPECT_THAT(line, HasSubstr(R"("_ResourceId":"/subscriptions/s/vm")"));
}

TEST_F(SinksTest, WhatCannotBeIsSaidWithWhatToDo) {
  EXPECT_THAT(names({.max_size = 4096}), HasSubstr("--audit-max-size needs --audit-log FILE"));
  EXPECT_THAT(names({.log = "-", .max_size = 4096}), HasSubstr("needs --audit-log FILE"));
  EXPECT_THAT(names({.log = "/dev/null", .max_size = 4096}), HasSubstr("cannot be rotated"));
  EXPECT_THAT(names({.format = "xml"}), HasSubstr("--audit-format json or azfw"));
  EXPECT_THAT(names({.syslog = "log.example:514"}), HasSubstr("an address, not a name"));
  EXPECT_THAT(names({.log = dir.string()}), HasSubstr("audit log: open " + dir.string()));
}

}  // namespace
}  // namespace egressd::daemon
