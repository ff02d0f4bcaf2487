// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <utility>
#include <vector>

#include "runtime/comm/mpi_check.h"

namespace neoloom::comm {
namespace {

using Pieces = std::vector<std::pair<size_t, size_t>>;

Pieces pieces_of(size_t n, size_t limit) {
  Pieces pieces;
  for_each_piece(n, limit, [&](size_t first, size_t count) { pieces.emplace_back(first, count); });
  return pieces;
}

TEST(LargeBuffer, TravelsInPiecesThatCoverItOnce) {
  EXPECT_EQ(pieces_of(10, 4), (Pieces{{0, 4}, {4, 4}, {8, 2}}));
  EXPECT_EQ(pieces_of(8, 4), (Pieces{{0, 4}, {4, 4}}));
  EXPECT_EQ(pieces_of(3, 4), (Pieces{{0, 3}}));
  EXPECT_TRUE(pieces_of(0, 4).empty());
}

TEST(LargeBuffer, FiveGigabytesFitInIntCounts) {
  for (const auto& [first, count] : pieces_of(size_t{5} << 30, kMaxElementsPerCall)) EXPECT_LE(count, size_t{1} << 30);
}

}  // namespace
}  // namespace neoloom::comm
