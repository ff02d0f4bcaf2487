// SPDX-License-Identifier: Apache-2.0
#include "runtime/train/side_product.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <stdexcept>

namespace neoloom::train {
namespace {

using testing::HasSubstr;

TEST(SideProduct, IsToldOnceWhenItCannotBeWrittenAndOnceWhenItIsThere) {
  SideProduct product("adapter-best");
  int attempts = 0;
  bool full = true;
  const auto write = [&] {
    ++attempts;
    if (full) throw std::runtime_error("No space left on device");
  };
  EXPECT_EQ(product.write(write).text, "");
  EXPECT_EQ(attempts, 0) << "nothing is due";
  product.due();
  const SideProduct::Outcome first = product.write(write);
  EXPECT_TRUE(first.failed);
  EXPECT_THAT(first.text,
              testing::AllOf(HasSubstr("adapter-best"), HasSubstr("No space left"), HasSubstr("tries again")));
  EXPECT_EQ(product.write(write).text, "");
  EXPECT_EQ(attempts, 2);
  full = false;
  const SideProduct::Outcome third = product.write(write);
  EXPECT_FALSE(third.failed);
  EXPECT_THAT(third.text, HasSubstr("written now"));
  product.write(write);
  EXPECT_EQ(attempts, 3);
}

}  // namespace
}  // namespace neoloom::train
