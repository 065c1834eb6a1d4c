#include "enforce/uplinks.h"

#include <gmock/gmock.h>

#include <sstream>

namespace egressd::enforce {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

TEST(Uplinks, AreWhereDefaultRoutesLead) {
  std::istringstream v4(
      "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n"
      "eth0\t00000000\t0102A8C0\t0003\t0\t0\t100\t00000000\t0\t0\t0\n"
      "half\t00000000\t0102A8C0\t0003\t0\t0\t100\t00000080\t0\t0\t0\n"
      "pod0\t00F40A0A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n");
  std::istringstream v6(
      "00000000000000000000000000000000 00 00000000000000000000000000000000 00 "
      "fe800000000000000000000000000001 00000400 00000001 00000000 00000003     eth1\n"
      "fd656774000000000000000000000000 40 00000000000000000000000000000000 00 "
      "00000000000000000000000000000000 00000100 00000001 00000000 00000001     pod0\n"
      "00000000000000000000000000000000 00 00000000000000000000000000000000 00 "
      "00000000000000000000000000000000 ffffffff 00000001 00000000 00200200       lo\n");
  EXPECT_THAT(uplinks_in(v4, v6), ElementsAre("eth0", "eth1"));
}

TEST(Uplinks, NoneWithoutRoutes) {
  std::istringstream v4("what is this\n");
  std::istringstream v6;
  v6.setstate(std::ios::failbit);
  EXPECT_THAT(uplinks_in(v4, v6), IsEmpty());
}

}  // namespace
}  // namespace egressd::enforce
