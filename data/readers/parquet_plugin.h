// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace neoloom::data {

/// Reads the rows of a Parquet file, some columns of it. Implemented in libneoloom_parquet.so with the Arrow library,
/// so that other runs load neither. No type of Arrow appears here.
class ParquetTable {
 public:
  virtual ~ParquetTable() = default;
  /// Names of all columns of the file, without those within them.
  virtual const std::vector<std::string>& columns() const = 0;
  virtual int64_t rows() const = 0;
  /// Chooses the columns to read. Call once, before next().
  /// Throws: Error(kData) for a column of a type that is neither text, number, boolean, list nor struct of these.
  virtual void choose(const std::vector<std::string>& names) = 0;
  /// Overwrites `values` with those of the next row, in the order of choose(). null stays null, a dictionary's value
  /// counts as itself. Returns false at the end. Holds a few thousand rows in memory.
  /// Throws: Error(kData) when the file is damaged.
  virtual bool next(std::vector<nlohmann::json>& values) = 0;
};

/// ABI version that the plug-in must have been built with. Raise it when this header changes.
inline constexpr int kParquetInterface = 2;

/// Opens a file by the plug-in libneoloom_parquet.so beside the executable, which stays loaded.
/// Throws: Error(kData) when the build has none, or the file is no whole Parquet file.
std::unique_ptr<ParquetTable> open_parquet_table(const std::string& path);

}  // namespace neoloom::data
