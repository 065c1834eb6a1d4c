#include "control/message.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace egressd::control {
namespace {

using nlohmann::json;

TEST(Message, RequestSurvivesTheWire) {
  const Request request{.command = "list", .arguments = {{"a", "x\ny\""}, {"b", "3"}}};
  const auto line = format_request(request);
  EXPECT_EQ(line.find('\n'), std::string::npos);
  const auto back = parse_request(line);
  ASSERT_TRUE(back) << back.error().message;
  EXPECT_EQ(back->command, "list");
  EXPECT_EQ(back->arguments, request.arguments);
}

TEST(Message, IntegersAndBooleansBecomeText) {
  const auto r = parse_request(R"({"v":1,"cmd":"watch","n":-5,"dns":true})");
  ASSERT_TRUE(r);
  EXPECT_EQ(r->arguments.at("n"), "-5");
  EXPECT_EQ(r->arguments.at("dns"), "true");
}

TEST(Message, RefusesEverythingElse) {
  for (const std::string text : {"",
                                 " ",
                                 "{",
                                 "null",
                                 "[]",
                                 "\"status\"",
                                 "{}",
                                 R"({"cmd":"status"})",
                                 R"({"v":2,"cmd":"status"})",
                                 R"({"v":"1","cmd":"status"})",
                                 R"({"v":1.0,"cmd":"status"})",
                                 R"({"v":1})",
                                 R"({"v":1,"cmd":5})",
                                 R"({"v":1,"cmd":"x","a":{}})",
                                 R"({"v":1,"cmd":"x","a":[1]})",
                                 R"({"v":1,"cmd":"x","a":1.5})",
                                 R"({"v":1,"cmd":"x","a":null})",
                                 R"({"v":1,"cmd":"x"} {)",
                                 "\xff\xfe",
                                 "{\"v\":1,\"cmd\":\"\xff\"}"})
    EXPECT_FALSE(parse_request(text)) << text;
}

TEST(Message, DeepNestingAndLengthAreBounded) {
  EXPECT_FALSE(parse_request("{\"v\":1,\"cmd\":\"x\",\"a\":" + std::string(30000, '[') +
                             std::string(30000, ']') + "}"));
  const std::string frame = R"({"v":1,"cmd":""})";
  const auto padded = [&](std::size_t size) {
    return R"({"v":1,"cmd":")" + std::string(size - frame.size(), 'x') + "\"}";
  };
  EXPECT_TRUE(parse_request(padded(kMaxRequestBytes - 1)));
  EXPECT_FALSE(parse_request(padded(kMaxRequestBytes)));
}

TEST(Message, AnswersCarryTheirBody) {
  EXPECT_EQ(json::parse(ok_line()), json::parse(R"({"v":1,"ok":true})"));
  EXPECT_EQ(json::parse(ok_line("{}")), json::parse(R"({"v":1,"ok":true})"));
  EXPECT_EQ(json::parse(ok_line(R"({"pid":3,"x":{"y":[]}})")),
            json::parse(R"({"v":1,"ok":true,"pid":3,"x":{"y":[]}})"));
  EXPECT_TRUE(check_answer(ok_line(R"({"pid":3})")));
}

TEST(Message, ErrorsComeBackAsTheyWereEvenIfNotUtf8) {
  const auto r = check_answer(error_line("no \"such\"\nthing"));
  ASSERT_FALSE(r);
  EXPECT_EQ(r.error().message, "no \"such\"\nthing");
  const auto bytes = error_line("\xff\x1b[2J");
  for (const char c : bytes) EXPECT_TRUE(c >= 0x20 && c < 0x7f) << bytes;
  EXPECT_FALSE(check_answer(bytes));
}

TEST(Message, AnotherProgramsAnswerIsRecognised) {
  for (const std::string text : {"", "HTTP/1.1 400 Bad Request", "{}", R"({"v":2,"ok":true})",
                                 R"({"v":1,"ok":"yes"})", R"({"v":1})", "[]"})
    EXPECT_FALSE(check_answer(text)) << text;
}

}  // namespace
}  // namespace egressd::control
