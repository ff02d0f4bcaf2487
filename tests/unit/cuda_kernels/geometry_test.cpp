// SPDX-License-Identifier: Apache-2.0
#include "runtime/cuda/kernels/geometry.h"

#include <gtest/gtest.h>

#include <vector>

namespace neoloom::cuda::kernels {
namespace {

TEST(RowGeometry, EveryColumnBelongsToOneThreadAndFitsItsRegisters) {
  for (const bool aligned : {false, true}) {
    for (int64_t columns = 1; columns <= 4096; ++columns) {
      const auto geometry = row_geometry(5, columns, aligned);
      ASSERT_TRUE(geometry) << columns;
      EXPECT_EQ(geometry->threads % kWarp, 0);
      EXPECT_LE(geometry->threads, kMaxThreads);
      EXPECT_LE(geometry->rounds * geometry->pack, kMaxValues);
      EXPECT_EQ(columns % geometry->pack, 0);
      EXPECT_GE(int64_t{geometry->threads} * geometry->rounds * geometry->pack, columns);
      // A warp that has nothing to do in any round would be one too many.
      EXPECT_LT(int64_t{geometry->threads - kWarp} * geometry->rounds * geometry->pack, columns) << columns;
    }
  }
}

TEST(RowGeometry, WidthsOfGptNeoReadSixteenBytesAtOnceInOneOrTwoRounds) {
  struct Row {
    int64_t columns;
    int rounds, threads;
  };
  for (const Row& row : std::vector<Row>{{768, 1, 96}, {2048, 1, 256}, {2560, 2, 160}}) {
    const auto geometry = row_geometry(16384, row.columns, true);
    ASSERT_TRUE(geometry);
    EXPECT_EQ(geometry->pack, kPack);
    EXPECT_EQ(geometry->rounds, row.rounds);
    EXPECT_EQ(geometry->threads, row.threads);
    EXPECT_EQ(geometry->blocks, 16384);
  }
}

TEST(RowGeometry, LongRowsAreRefused) {
  EXPECT_TRUE(row_geometry(1, 4096, true));
  EXPECT_FALSE(row_geometry(1, 4104, true));
  EXPECT_FALSE(row_geometry(1, 4097, false));
  EXPECT_FALSE(row_geometry(1, 0, true));
}

TEST(RowGeometry, NoRowStartsNothingAndManyRowsShareTheBlocks) {
  EXPECT_EQ(row_geometry(0, 768, true)->blocks, 0);
  EXPECT_EQ(row_geometry(int64_t{1} << 40, 768, true)->blocks, kMaxBlocks);
}

TEST(ElementwiseGeometry, CountsBeyondThirtyTwoBits) {
  EXPECT_EQ(elementwise_geometry(0, 3072, true).blocks, 0);
  EXPECT_EQ(elementwise_geometry(1, 1, false).blocks, 1);
  EXPECT_EQ(elementwise_geometry(1, 257, false).blocks, 2);
  EXPECT_EQ(elementwise_geometry(1, 2048, true).blocks, 1);
  EXPECT_EQ(elementwise_geometry(1, 2056, true).blocks, 2);
  EXPECT_EQ(elementwise_geometry(int64_t{1} << 22, 10240, true).blocks, kMaxBlocks);
}

}  // namespace
}  // namespace neoloom::cuda::kernels
