// SPDX-License-Identifier: Apache-2.0
#include "runtime/core/wire.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "tests/support/scratch.h"

namespace neoloom::core {
namespace {

struct Measure {
  int64_t count = 0;
  double seconds = 0.0;
  std::string name;
  std::vector<int> cores;
  bool bound = false;
};
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(Measure, count, seconds, name, cores, bound)

struct Other {
  std::string name;
  std::vector<double> losses;
};
void to_json(nlohmann::json& json, const Other& sent) { json = {{"name", sent.name}, {"losses", sent.losses}}; }

TEST(Wire, KeepsEveryBitAndEveryByte) {
  const Measure sent{std::numeric_limits<int64_t>::min(), 1.0 / 3.0, std::string("\xff\0 line\n", 8), {0, 3}, true};
  const auto got = from_wire<Measure>(to_wire(sent));
  EXPECT_EQ(got.count, sent.count);
  EXPECT_EQ(got.seconds, sent.seconds);
  EXPECT_EQ(got.name, sent.name);
  EXPECT_EQ(got.cores, sent.cores);
  EXPECT_TRUE(got.bound);
}

TEST(Wire, KeepsWhatIsNoNumber) {
  EXPECT_TRUE(
      std::isnan(from_wire<Measure>(to_wire(Measure{.seconds = std::nan(""), .name = {}, .cores = {}})).seconds));
}

TEST(Wire, RefusesTheBytesOfAnotherStruct) {
  error_of(ErrorKind::kInternal, [] { from_wire<Measure>(to_wire(Other{"x", {1.0}})); });
  error_of(ErrorKind::kInternal, [] { from_wire<Measure>("no CBOR"); });
}

}  // namespace
}  // namespace neoloom::core
